"""What `kvloop cache` does to stores: list, verify, copy and thin them out, without a model."""
