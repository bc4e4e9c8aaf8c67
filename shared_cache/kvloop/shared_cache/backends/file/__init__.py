"""The backend `file`: pages as files of a directory that nodes share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kvloop.shared_cache.backend import BackendOpener
from kvloop.shared_cache.backend_config import parse_backend_config
from kvloop.shared_cache.backends.file.backend import FileBackend, FileConfig
from kvloop.shared_cache.host_pool import HostPool


def prepare(
    fields: Mapping[str, Any], pool: HostPool, namespace: bytes, _modules: Collection[str]
) -> BackendOpener:
    """Check the configuration; see the factory."""
    config = parse_backend_config("file", fields, FileConfig)
    config.check_paths()
    return lambda: FileBackend(config, pool, namespace)
