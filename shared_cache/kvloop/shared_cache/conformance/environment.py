"""The backend under test as environment variables name it, for runs without any code.

KVLOOP_CONFORMANCE_BACKEND   the backend's name, as for --hicache-storage-backend
KVLOOP_CONFORMANCE_CONFIG    its extra config: JSON, or @FILE
KVLOOP_CONFORMANCE_MODULES   modules that `dynamic` may load, comma-separated
KVLOOP_CONFORMANCE_BOUNDED   the extra config of a store that is bounded: JSON or @FILE, in which
                             "$NUM_BYTES" stands for the bound; without it capacity is not tested
KVLOOP_CONFORMANCE_LACKS     what the store cannot do, comma-separated: can_share, can_delete, ...
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kvloop.shared_cache.conformance.spec import BackendSpec, without
from kvloop.shared_cache.errors import ConfigError

_PREFIX = "KVLOOP_CONFORMANCE_"
_BOUND = "$NUM_BYTES"


def spec_from_environment(environ: Mapping[str, str]) -> BackendSpec | None:
    """None where no backend is named; raises ConfigError naming the variable that is wrong."""
    name = environ.get(f"{_PREFIX}BACKEND")
    if not name:
        return None
    spec = BackendSpec(
        name=name,
        extra_config=_config(environ, "CONFIG") or {},
        dynamic_modules=tuple(_words(environ, "MODULES")),
    )
    try:
        return without(spec, _words(environ, "LACKS"))
    except ValueError as error:
        raise ConfigError(f"{_PREFIX}LACKS: {error}") from None


def bounded_from_environment(
    spec: BackendSpec, environ: Mapping[str, str], num_bytes: int
) -> BackendSpec | None:
    """The spec of a store bounded to `num_bytes`; None where none is named."""
    config = _config(environ, "BOUNDED")
    if config is None:
        return None
    return replace(spec, extra_config=_with_bound(config, num_bytes))


def _with_bound(value: Any, num_bytes: int) -> Any:
    if isinstance(value, dict):
        return {name: _with_bound(inner, num_bytes) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_bound(inner, num_bytes) for inner in value]
    return num_bytes if value == _BOUND else value


def _words(environ: Mapping[str, str], name: str) -> list[str]:
    return [word for word in environ.get(_PREFIX + name, "").split(",") if word]


def _config(environ: Mapping[str, str], name: str) -> dict[str, Any] | None:
    text = environ.get(_PREFIX + name)
    if not text:
        return None
    try:
        config = json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{_PREFIX}{name}: {error}; it must be JSON, or @FILE") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{_PREFIX}{name} must be a JSON object, got {text!r}")
    return config
