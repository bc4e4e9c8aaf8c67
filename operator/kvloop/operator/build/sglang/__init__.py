"""Engine sglang of a PDCluster: its flags, its router, and caches in its words."""
