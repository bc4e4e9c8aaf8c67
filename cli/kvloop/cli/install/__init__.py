"""`kvloop install`, `upgrade`, `uninstall` and `status`: the operator on a cluster."""
