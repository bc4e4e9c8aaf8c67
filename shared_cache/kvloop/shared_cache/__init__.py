"""Page keys, page objects, the radix tree, the host pool and the storage backends of the shared cache."""
