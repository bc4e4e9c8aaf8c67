"""Page keys and objects, the radix tree, the host pool and the storage of the shared cache."""
