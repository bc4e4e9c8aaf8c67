"""Pages in a tree of directories, whatever moves their bytes: shared by file, hf3fs and nixl."""
