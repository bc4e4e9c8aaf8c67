"""What `PUT /hicache/storage-backend` asks for, read from its body or from a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.factory import known_backends
from kvloop.shared_cache.hicache_names import PrefetchPolicy, WritePolicy
from kvloop.shared_cache.wire import Role

_BACKEND = "hicache_storage_backend"
EXTRA_CONFIG = "hicache_storage_backend_extra_config_json"
_PREFETCH = "hicache_storage_prefetch_policy"
_WRITE = "hicache_write_policy"
_FIELDS = (_BACKEND, EXTRA_CONFIG, _PREFETCH, _WRITE)
_MAX_TIMEOUT_S = 600.0

Member = Role | Literal["router"]
"""Who is asked."""


class StorageChange(msgspec.Struct, frozen=True, kw_only=True):
    """None leaves a thing as it is. The extra config may hold secrets: never log this."""

    backend: str | None = None
    extra_config: dict[str, Any] = {}
    prefetch_policy: PrefetchPolicy | None = None
    write_policy: WritePolicy | None = None


def parse_storage_change(body: bytes, role: Member) -> StorageChange:
    """Raise ConfigError naming the field that is unknown, wrong, or of no use on such a node."""
    change = parse_attachment(body, role)
    if change == StorageChange():
        known = f"{_BACKEND}, {_PREFETCH} or {_WRITE}" if role == "prefill" else _BACKEND
        raise ConfigError(f"nothing to change: give {known}")
    return change


def parse_attachment(body: bytes, role: Member) -> StorageChange:
    """The same, of a body that may say nothing."""
    fields = _object(body)
    for name in fields:
        if name not in _FIELDS:
            raise ConfigError(f"unknown field {name!r}; known: {', '.join(_FIELDS)}")
    given = {name: value for name, value in fields.items() if value is not None}
    if EXTRA_CONFIG in given and _BACKEND not in given:
        raise ConfigError(f"{EXTRA_CONFIG} is of no use without {_BACKEND}: give both")
    for name in (_PREFETCH, _WRITE):
        if name in given and role != "prefill":
            this = "the router" if role == "router" else f"a {role} node"
            raise ConfigError(f"{name} is a prefill node's; this is {this}")
    return StorageChange(
        backend=_choice(given, _BACKEND, known_backends()),
        extra_config=_extra_config(given.get(EXTRA_CONFIG, {})),
        prefetch_policy=_choice(given, _PREFETCH, get_args(PrefetchPolicy)),
        write_policy=_choice(given, _WRITE, get_args(WritePolicy)),
    )


def parse_timeout(parameters: Mapping[str, str], default: float) -> float:
    """`timeout_s` of DELETE and clear; raises ConfigError for what it cannot be."""
    given = parameters.get("timeout_s")
    for name in parameters:
        if name != "timeout_s":
            raise ConfigError(f"unknown parameter {name!r}; known: timeout_s")
    try:
        value = default if given is None else float(given)
    except ValueError:
        value = math.nan
    if not 0 < value <= _MAX_TIMEOUT_S:
        raise ConfigError(
            f"timeout_s must be a number of seconds above 0 and up to {_MAX_TIMEOUT_S:.0f}, "
            f"got {given!r}"
        )
    return value


def _object(body: bytes | str) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ConfigError(f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ConfigError(f"the body must be a JSON object, got {_kind(fields)}")
    return fields


def _choice(given: dict[str, Any], name: str, known: Any) -> Any:
    value = given.get(name)
    if value is None or (isinstance(value, str) and value in known):
        return value
    shown = repr(value) if isinstance(value, str) else _kind(value)
    raise ConfigError(f"{name} must be one of {', '.join(known)}, got {shown}")


def _extra_config(value: Any) -> dict[str, Any]:
    """A JSON object, or a string that holds one, as SGLang's clients send it."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise ConfigError(f"{EXTRA_CONFIG} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{EXTRA_CONFIG} must be a JSON object, got {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    """A JSON value's type: the value itself may be a secret."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "a boolean"
    kinds: dict[type, str] = {list: "an array", dict: "an object", str: "a string"}
    return kinds.get(type(value), "a number")
