"""`kvloop bench storage`: what a storage backend moves, beside what the storage itself can."""
