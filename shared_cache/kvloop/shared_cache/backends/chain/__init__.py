"""The backend `chain`: a near store before a far one, such as NVMe files over Mooncake."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kvloop.shared_cache.backend import BackendOpener
from kvloop.shared_cache.backend_config import parse_backend_config
from kvloop.shared_cache.backends.chain.backend import ChainBackend
from kvloop.shared_cache.backends.chain.config import ChainConfig, prepare_inner, refuse_twins
from kvloop.shared_cache.host_pool import HostPool


def prepare(
    fields: Mapping[str, Any], pool: HostPool, namespace: bytes, modules: Collection[str]
) -> BackendOpener:
    """Check the configuration, both inner ones too; see the factory."""
    config = parse_backend_config("chain", fields, ChainConfig)
    refuse_twins("chain", near=config.near, far=config.far)
    near = prepare_inner("chain", "near", config.near, pool, namespace, modules)
    far = prepare_inner("chain", "far", config.far, pool, namespace, modules)
    return lambda: ChainBackend(config, near, far, pool, namespace)
