"""Finding the class that `dynamic` names, and saying at once where it cannot serve."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Mapping
from typing import Any, Literal

import msgspec

from kvloop.shared_cache.backend import BackendOpener, StorageBackend
from kvloop.shared_cache.backend_config import parse_own_fields
from kvloop.shared_cache.backends.dynamic.sglang_interface import missing_methods
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.host_pool import HostPool

_FLAG = "--hicache-dynamic-modules"


class DynamicConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of `dynamic`'s own; the names are SGLang's. All others are the class's."""

    backend_name: str
    """For people; in errors."""
    module_path: str
    """The module's name as `import` knows it, such as `acme.kv_store`."""
    class_name: str
    interface_v1: Literal[0, 1] = 0
    """Of a class with SGLang's interface: 1 where pages move by its batch v1 methods."""


def dynamic_opener(
    fields: Mapping[str, Any], pool: HostPool, namespace: bytes, allowed: Collection[str]
) -> BackendOpener:
    """Load the class now; raises ConfigError where it may not be loaded, or cannot serve.

    Nothing of a module that is not allowed is run.
    """
    config, rest = parse_own_fields("dynamic", fields, DynamicConfig)
    if config.module_path not in allowed:
        raise ConfigError(
            f"storage backend 'dynamic': module_path {config.module_path!r} is not among the "
            f"modules that this node may load ({', '.join(sorted(allowed)) or 'none'}): name it by "
            f"{_FLAG} when the node is started"
        )
    found = _load_class(config)
    _require_whole(config, found)
    if issubclass(found, StorageBackend):
        make: Any = found
        _require_signature(config, found, rest, pool, namespace)
        return lambda: _checked(config, make(rest, pool, namespace))
    return _sglang_opener(config, found, fields, pool, namespace)


def _load_class(config: DynamicConfig) -> type[Any]:
    try:
        module = importlib.import_module(config.module_path)
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{_where(config)}: module_path {config.module_path!r} cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error
    found = getattr(module, config.class_name, None)
    if not inspect.isclass(found):
        raise ConfigError(
            f"{_where(config)}: {config.module_path} has no class_name {config.class_name!r}"
        )
    return found


def _require_whole(config: DynamicConfig, found: type[Any]) -> None:
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if not issubclass(found, StorageBackend):
        missing = sorted({*missing, *missing_methods(found, config.interface_v1)})
        if missing:
            raise ConfigError(
                f"{_where(config)}: class_name {config.class_name!r} is no kvloop.shared_cache."
                "backend.StorageBackend, and for a class with SGLang's interface (interface_v1 "
                f"{config.interface_v1}) it lacks {', '.join(missing)}"
            )
    if missing:
        raise ConfigError(
            f"{_where(config)}: class_name {config.class_name!r} lacks {', '.join(missing)}"
        )


def _require_signature(config: DynamicConfig, found: type[Any], *arguments: object) -> None:
    """The constructor must take what it will be called with; some classes cannot say."""
    try:
        signature = inspect.signature(found)
    except ValueError:
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        wanted = "(config, pool, namespace)" if len(arguments) == 3 else "(storage_config, {})"
        raise ConfigError(
            f"{_where(config)}: class_name {config.class_name!r} is made as "
            f"{config.class_name}{wanted}, which it does not take: {error}"
        ) from None


def _sglang_opener(
    config: DynamicConfig,
    found: type[Any],
    fields: Mapping[str, Any],
    pool: HostPool,
    namespace: bytes,
) -> BackendOpener:
    from kvloop.shared_cache.backends.dynamic.memory import load_torch
    from kvloop.shared_cache.backends.dynamic.sglang_class import SGLangClassBackend

    _require_signature(config, found, None, {})
    load_torch()
    where = _where(config)
    return lambda: SGLangClassBackend(
        found, fields, pool, namespace, is_v1=bool(config.interface_v1), where=where
    )


def _checked(config: DynamicConfig, made: Any) -> StorageBackend:
    if not isinstance(made, StorageBackend):
        raise ConfigError(
            f"{_where(config)}: {config.class_name} made a {type(made).__name__} instead of itself"
        )
    return made


def _where(config: DynamicConfig) -> str:
    return f"storage backend 'dynamic' ({config.backend_name})"
