"""Reading a backend's extra config: known fields of the right type, or an error that says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from kvloop.shared_cache.errors import ConfigError

Config = TypeVar("Config", bound=msgspec.Struct)


def parse_backend_config(backend: str, fields: Mapping[str, Any], config: type[Config]) -> Config:
    """Make the backend's config struct; raises ConfigError naming the field that is wrong."""
    known = {field.name: field for field in msgspec.structs.fields(config)}
    where = f"storage backend {backend!r}: extra config"
    for name in fields:
        if name not in known:
            raise ConfigError(f"{where} has an unknown field {name!r}; known: {', '.join(known)}")
    for name, field in known.items():
        if field.required and name not in fields:
            raise ConfigError(f"{where} lacks the field {name!r}")
    try:
        return msgspec.convert(dict(fields), config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from None
