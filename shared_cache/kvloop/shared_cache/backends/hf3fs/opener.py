"""Checking the configuration of `hf3fs`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from kvloop.shared_cache.backend import BackendOpener
from kvloop.shared_cache.backend_config import parse_backend_config
from kvloop.shared_cache.backends.hf3fs.config import Hf3fsConfig, ring_settings
from kvloop.shared_cache.backends.hf3fs.library import find_usrbio, load_usrbio
from kvloop.shared_cache.backends.hf3fs.store import Hf3fsStore
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.safe_path import checked_root, path_under


def hf3fs_opener(
    fields: Mapping[str, Any], pool: HostPool, namespace: bytes, _modules: Collection[str]
) -> BackendOpener:
    """Check the fields and load the library now; the mount may come and go."""
    config = parse_backend_config("hf3fs", fields, Hf3fsConfig)
    mount = checked_root("storage backend 'hf3fs': mount", config.mount)
    if os.path.exists(mount) and not os.path.isdir(mount):
        raise ConfigError(f"storage backend 'hf3fs': mount: {str(mount)!r} must be a directory")
    root = path_under(mount, "storage backend 'hf3fs': directory", config.directory)
    rings = ring_settings(config, str(mount), pool.shape.object_bytes)
    usrbio = _library(config)
    return lambda: Hf3fsStore(config, root, rings, usrbio, pool, namespace)


def _library(config: Hf3fsConfig) -> Any | None:
    match config.io:
        case "usrbio":
            return load_usrbio()
        case "posix":
            return None
        case "auto":
            return find_usrbio()
