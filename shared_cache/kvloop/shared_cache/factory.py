"""Opening a storage backend by its name; each is imported only when it is asked for.

`kvloop.shared_cache.backends.<name>` has `prepare(fields, pool, namespace, dynamic_modules)`, which
checks the configuration (ConfigError) and returns the opener.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast, get_args

from kvloop.shared_cache.backend import BackendOpener, StorageBackend
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.hicache_names import BackendName
from kvloop.shared_cache.host_pool import HostPool

_Prepare = Callable[[Mapping[str, Any], HostPool, bytes, Collection[str]], BackendOpener]
_BACKENDS: tuple[str, ...] = get_args(BackendName)


def backend_opener(
    name: str,
    extra_config: Mapping[str, Any],
    pool: HostPool,
    namespace: bytes,
    dynamic_modules: Collection[str] = (),
) -> BackendOpener:
    """Check the configuration now (ConfigError), and return what opens the backend.

    The opener may be called again and again; it raises StorageError where the store is not there.
    No error, here or later, shows a secret of the configuration. Its settings of prefetch are not
    the backend's. `dynamic_modules` are those that a `dynamic` backend may be loaded from.
    """
    from kvloop.shared_cache.backend_config import split_prefetch_settings
    from kvloop.shared_cache.redact import RedactedBackend, Redactor

    if name not in _BACKENDS:
        known = ", ".join(known_backends())
        raise ConfigError(f"unknown storage backend {name!r}; known: {known}")
    _, config = split_prefetch_settings(extra_config)
    redactor = Redactor(config)
    with redactor.errors():
        opener = _prepare(name)(config, pool, namespace, dynamic_modules)

    def open_redacted() -> StorageBackend:
        with redactor.errors():
            return RedactedBackend(opener(), redactor)

    return open_redacted


def open_backend(
    name: str, extra_config: Mapping[str, Any], pool: HostPool, namespace: bytes
) -> StorageBackend:
    """Open a backend over the pool's slots, for one namespace."""
    return backend_opener(name, extra_config, pool, namespace)()


def known_backends() -> list[str]:
    """The names of all backends."""
    return list(_BACKENDS)


def _prepare(name: str) -> _Prepare:
    module = importlib.import_module(f"kvloop.shared_cache.backends.{name}")
    return cast(_Prepare, module.prepare)
