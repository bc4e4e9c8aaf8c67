"""Reading a backend's extra config: known fields of the right type, or an error that says so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from kvloop.shared_cache.errors import ConfigError

Config = TypeVar("Config", bound=msgspec.Struct)


class PrefetchLimits(NamedTuple):
    """What the extra config says of prefetch, where SGLang keeps it; None: nothing."""

    threshold: int | None = None
    """Tokens: a shorter rest of a prompt is not looked for in L3."""
    timeout_base: float | None = None
    """Seconds that policy timeout waits at most, and for each 1,024 tokens in addition:"""
    timeout_per_ki_token: float | None = None


def split_prefetch_settings(
    extra_config: Mapping[str, Any],
) -> tuple[PrefetchLimits, dict[str, Any]]:
    """Part the settings of prefetch from the backend's own; raises ConfigError naming the field."""
    rest = dict(extra_config)
    threshold = _number(rest, "prefetch_threshold", int)
    limits = PrefetchLimits(
        None if threshold is None else int(threshold),
        _number(rest, "prefetch_timeout_base", int | float),
        _number(rest, "prefetch_timeout_per_ki_token", int | float),
    )
    return limits, rest


def parse_backend_config(backend: str, fields: Mapping[str, Any], config: type[Config]) -> Config:
    """Make the backend's config struct; raises ConfigError naming the field that is wrong."""
    known = config.__struct_fields__
    for name in fields:
        if name not in known:
            raise ConfigError(
                f"{_where(backend)} has an unknown field {name!r}; known: {', '.join(known)}"
            )
    return parse_own_fields(backend, fields, config)[0]


def parse_own_fields(
    backend: str, fields: Mapping[str, Any], config: type[Config]
) -> tuple[Config, dict[str, Any]]:
    """The config struct, and the fields that are none of its own."""
    rest = {name: value for name, value in fields.items() if name not in config.__struct_fields__}
    for field in msgspec.structs.fields(config):
        if field.required and field.name not in fields:
            raise ConfigError(f"{_where(backend)} lacks the field {field.name!r}")
    try:
        return msgspec.convert(dict(fields), config), rest
    except msgspec.ValidationError as error:
        raise ConfigError(f"{_where(backend)}: {error}") from None


def _where(backend: str) -> str:
    return f"storage backend {backend!r}: extra config"


def _number(fields: dict[str, Any], name: str, kind: Any) -> float | None:
    value = fields.pop(name, None)
    if value is None:
        return None
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if not is_number or not 0 <= value < math.inf:
        wanted = "a whole number" if kind is int else "a number"
        raise ConfigError(f"extra config: {name} must be {wanted} of 0 or above, got {value!r}")
    return float(value)
