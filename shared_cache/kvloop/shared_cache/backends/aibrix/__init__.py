"""The backend `aibrix`: pages as blocks of AIBrix's KV cache, in its SHFS or RocksDB store."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kvloop.shared_cache.backend import BackendOpener
from kvloop.shared_cache.backends.aibrix.backend import AibrixBackend
from kvloop.shared_cache.backends.aibrix.config import parse_aibrix_config
from kvloop.shared_cache.backends.aibrix.library import load_aibrix
from kvloop.shared_cache.host_pool import HostPool


def prepare(
    fields: Mapping[str, Any], pool: HostPool, namespace: bytes, _modules: Collection[str]
) -> BackendOpener:
    """Check the configuration and load the library; see the factory."""
    config = parse_aibrix_config(fields)
    load_aibrix(config.l2_cache_backend)
    return lambda: AibrixBackend(config, pool, namespace)
