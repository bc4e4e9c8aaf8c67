"""The backend `nixl`: pages moved by NVIDIA's NIXL to files, S3 objects or a memory server."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kvloop.shared_cache.backend import BackendOpener
from kvloop.shared_cache.backend_config import parse_backend_config
from kvloop.shared_cache.backends.nixl.config import (
    FileConfig,
    MemoryConfig,
    ObjectConfig,
    config_type,
    params_of,
)
from kvloop.shared_cache.backends.nixl.library import check_plugin, load_nixl
from kvloop.shared_cache.host_pool import HostPool


def prepare(
    fields: Mapping[str, Any], pool: HostPool, namespace: bytes, _modules: Collection[str]
) -> BackendOpener:
    """Check the configuration, and that this build of NIXL has the plugin; see the factory."""
    config = parse_backend_config("nixl", fields, config_type(fields))
    params = params_of(config)
    if isinstance(config, FileConfig):
        opener = _file_opener(config, pool, namespace)
    elif isinstance(config, MemoryConfig):
        opener = _memory_opener(config, pool, namespace)
    else:
        opener = _object_opener(config, pool, namespace)
    check_plugin(load_nixl(), config.plugin, params)
    return opener


def _file_opener(config: FileConfig, pool: HostPool, namespace: bytes) -> BackendOpener:
    from kvloop.shared_cache.backends.nixl.file_store import NixlFileStore, file_settings

    file_settings(config)
    return lambda: NixlFileStore(config, pool, namespace)


def _memory_opener(config: MemoryConfig, pool: HostPool, namespace: bytes) -> BackendOpener:
    from kvloop.shared_cache.backends.nixl.memory_store import NixlMemoryStore

    return lambda: NixlMemoryStore(config, pool, namespace)


def _object_opener(config: ObjectConfig, pool: HostPool, namespace: bytes) -> BackendOpener:
    from kvloop.shared_cache.backends.nixl.object_store import NixlObjectStore

    return lambda: NixlObjectStore(config, pool, namespace)
