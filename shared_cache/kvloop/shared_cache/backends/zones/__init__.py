"""The backend `zones`: an edge site's own store, and the central one across a frail link."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kvloop.shared_cache.backend import BackendOpener
from kvloop.shared_cache.backend_config import parse_backend_config
from kvloop.shared_cache.backends.chain.config import prepare_inner, refuse_twins
from kvloop.shared_cache.backends.zones.backend import Openers, ZonesBackend
from kvloop.shared_cache.backends.zones.config import ZonesConfig
from kvloop.shared_cache.host_pool import HostPool


def prepare(
    fields: Mapping[str, Any], pool: HostPool, namespace: bytes, modules: Collection[str]
) -> BackendOpener:
    """Check the configuration, both inner ones too; see the factory."""
    config = parse_backend_config("zones", fields, ZonesConfig)
    refuse_twins("zones", local=config.local, central=config.central)

    def openers(over: HostPool) -> Openers:
        return Openers(
            prepare_inner("zones", "local", config.local, over, namespace, modules),
            prepare_inner("zones", "central", config.central, over, namespace, modules),
        )

    staging = HostPool(pool.shape, config.staging_pages)
    callers, senders = openers(pool), openers(staging)
    return lambda: ZonesBackend(config, callers, senders, pool, staging, namespace)
