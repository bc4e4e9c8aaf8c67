"""The kvloop command."""
