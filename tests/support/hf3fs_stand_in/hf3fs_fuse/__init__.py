"""Stands in for 3FS's Python package; see `hf3fs_py_usrbio` beside it."""
