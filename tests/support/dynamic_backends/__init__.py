"""Storage classes as others write them, for the backend `dynamic` to load."""
