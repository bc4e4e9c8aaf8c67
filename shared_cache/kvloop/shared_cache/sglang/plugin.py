"""The class that SGLang loads."""

from __future__ import annotations

import types
from functools import cache
from typing import Any

from kvloop.shared_cache.sglang.installed import storage_base
from kvloop.shared_cache.sglang.storage import SharedCacheStorage


@cache
def storage_class() -> type[Any]:
    """`SharedCacheStorage` as a HiCacheStorage; ImportError where SGLang is not installed."""
    return types.new_class("KVLoopStorage", (SharedCacheStorage, storage_base()), exec_body=_body)


def _body(namespace: dict[str, Any]) -> None:
    namespace["__module__"] = "kvloop.shared_cache.sglang"
    namespace["__doc__"] = SharedCacheStorage.__doc__
