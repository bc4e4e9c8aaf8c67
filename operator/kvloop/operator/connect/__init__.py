"""From a SharedCache to how pods reach it: pure, one file a backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kvloop.operator.connect.aibrix import connect_aibrix
from kvloop.operator.connect.dynamic import connect_dynamic
from kvloop.operator.connect.file import connect_file
from kvloop.operator.connect.hf3fs import connect_hf3fs
from kvloop.operator.connect.mooncake import connect_mooncake
from kvloop.operator.connect.nixl import connect_nixl
from kvloop.operator.connect.zones import connect_zones
from kvloop.operator.connection import Connection
from kvloop.operator.types.shared_cache import Backend, SharedCache

__all__ = ["connect"]

_ONE: Mapping[Backend, Callable[[SharedCache], Connection]] = {
    "mooncake": connect_mooncake,
    "hf3fs": connect_hf3fs,
    "file": connect_file,
    "nixl": connect_nixl,
    "aibrix": connect_aibrix,
    "dynamic": connect_dynamic,
}


def connect(cache: SharedCache, others: Mapping[str, SharedCache]) -> Connection:
    """How pods of the cache's namespace reach it.

    `others` are the namespace's SharedCaches by name; only zones looks there. ConnectError where
    the cache names another that is not there, or sets what the operator sets.
    """
    if cache.spec.backend == "zones":
        return connect_zones(cache, others, lambda part: _ONE[part.spec.backend](part))
    return _ONE[cache.spec.backend](cache)
