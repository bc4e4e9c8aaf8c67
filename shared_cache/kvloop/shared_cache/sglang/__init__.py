"""The shared cache as a storage backend of SGLang's HiCache.

SGLang loads `KVLoopStorage` of this module by `--hicache-storage-backend dynamic`; docs/backends/
sglang.md has the command line. Importing the module needs no SGLang, only the class does.
"""

from __future__ import annotations

from typing import Any

CLASS_NAME = "KVLoopStorage"


def __getattr__(name: str) -> Any:
    """`KVLoopStorage`, a subclass of the HiCacheStorage of the SGLang that is installed."""
    if name == CLASS_NAME:
        from kvloop.shared_cache.sglang.plugin import storage_class

        return storage_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
