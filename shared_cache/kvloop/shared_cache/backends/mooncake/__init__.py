"""The backend `mooncake`: pages in the memory of a Mooncake store's segments."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kvloop.shared_cache.backend import BackendOpener
from kvloop.shared_cache.backends.mooncake.backend import MooncakeBackend
from kvloop.shared_cache.backends.mooncake.config import parse_config
from kvloop.shared_cache.backends.mooncake.environment import require_environment, variables_of
from kvloop.shared_cache.backends.mooncake.library import load_mooncake
from kvloop.shared_cache.host_pool import HostPool


def prepare(
    fields: Mapping[str, Any], pool: HostPool, namespace: bytes, _modules: Collection[str]
) -> BackendOpener:
    """Check the configuration and load the library; see the factory."""
    config = parse_config(fields)
    require_environment(variables_of(config))  # before the library is loaded: it may look at once
    load_mooncake("store")
    return lambda: MooncakeBackend(config, pool, namespace)
