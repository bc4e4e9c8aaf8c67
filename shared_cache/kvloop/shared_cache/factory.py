"""Opening a storage backend by its name; each is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.host_pool import HostPool

BackendOpener = Callable[[], StorageBackend]
_Prepare = Callable[[Mapping[str, Any], HostPool, bytes, Collection[str]], BackendOpener]


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

    prepare = _BACKENDS.get(name)
    if prepare is None:
        known = ", ".join(known_backends())
        raise ConfigError(f"unknown storage backend {name!r}; known: {known}")
    _, config = split_prefetch_settings(extra_config)
    redactor = Redactor(config)
    with redactor.errors():
        opener = prepare(config, pool, namespace, dynamic_modules)

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
    return sorted(_BACKENDS)


def _file(
    fields: Mapping[str, Any], pool: HostPool, namespace: bytes, _modules: Collection[str]
) -> BackendOpener:
    from kvloop.shared_cache.backend_config import parse_backend_config
    from kvloop.shared_cache.file import FileBackend, FileConfig

    config = parse_backend_config("file", fields, FileConfig)
    return lambda: FileBackend(config, pool, namespace)


def _mooncake(
    fields: Mapping[str, Any], pool: HostPool, namespace: bytes, _modules: Collection[str]
) -> BackendOpener:
    from kvloop.shared_cache.backend_config import parse_backend_config
    from kvloop.shared_cache.mooncake import MooncakeBackend, MooncakeConfig
    from kvloop.shared_cache.mooncake_library import load_mooncake

    load_mooncake("store")
    config = parse_backend_config("mooncake", fields, MooncakeConfig)
    return lambda: MooncakeBackend(config, pool, namespace)


def _dynamic(
    fields: Mapping[str, Any], pool: HostPool, namespace: bytes, modules: Collection[str]
) -> BackendOpener:
    from kvloop.shared_cache.dynamic import dynamic_opener

    return dynamic_opener(fields, pool, namespace, modules)


_BACKENDS: dict[str, _Prepare] = {"dynamic": _dynamic, "file": _file, "mooncake": _mooncake}
