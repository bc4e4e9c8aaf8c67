"""The backend `mooncake`: pages in the memory of a Mooncake store's segments."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kvloop.shared_cache.backend import BackendOpener
from kvloop.shared_cache.backend_config import parse_backend_config
from kvloop.shared_cache.backends.mooncake.backend import MooncakeBackend, MooncakeConfig
from kvloop.shared_cache.backends.mooncake.library import load_mooncake
from kvloop.shared_cache.host_pool import HostPool


def prepare(
    fields: Mapping[str, Any], pool: HostPool, namespace: bytes, _modules: Collection[str]
) -> BackendOpener:
    """Check the configuration and load the library; see the factory."""
    load_mooncake("store")
    config = parse_backend_config("mooncake", fields, MooncakeConfig)
    return lambda: MooncakeBackend(config, pool, namespace)
