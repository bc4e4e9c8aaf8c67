"""The backend `dynamic`: a class of a module that the node was told at launch it may load."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Mapping
from typing import Any, Literal

import msgspec

from kvloop.shared_cache.backend import BackendOpener, StorageBackend
from kvloop.shared_cache.backend_config import parse_own_fields
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
    interface_v1: Literal[0, 1] = 1
    """Accepted, and of no effect on classes with this project's contract."""


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
    backend_class = _load_class(config)
    return lambda: backend_class(rest, pool, namespace)


def _load_class(config: DynamicConfig) -> Any:
    where = f"storage backend 'dynamic' ({config.backend_name})"
    try:
        module = importlib.import_module(config.module_path)
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{where}: module_path {config.module_path!r} cannot be imported: "
            f"{type(error).__name__}: {error}"
        ) from error
    found = getattr(module, config.class_name, None)
    if not inspect.isclass(found):
        raise ConfigError(f"{where}: {config.module_path} has no class_name {config.class_name!r}")
    if not issubclass(found, StorageBackend):
        raise ConfigError(
            f"{where}: class_name {config.class_name!r} is no kvloop.shared_cache.backend."
            "StorageBackend; classes with SGLang's interface cannot be attached"
        )
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise ConfigError(f"{where}: class_name {config.class_name!r} lacks {', '.join(missing)}")
    return found
