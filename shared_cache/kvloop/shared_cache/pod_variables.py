"""`${POD_IP}` and its like in a backend's extra config: one config for all pods, each its own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from kvloop.shared_cache.errors import ConfigError

VARIABLES = ("POD_IP", "POD_NAME", "NODE_NAME")
_PATTERN = re.compile(r"\$\{(" + "|".join(VARIABLES) + r")\}")


def expanded(
    config: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The config with these variables' values in its strings, at any depth; others stay.

    Raises ConfigError naming field and variable where it is not set.
    """
    values = os.environ if environment is None else environment
    return {name: _expanded(value, values, name) for name, value in config.items()}


def _expanded(value: Any, values: Mapping[str, str], where: str) -> Any:
    if isinstance(value, str):
        return _PATTERN.sub(lambda found: _value(found[1], values, where), value)
    if isinstance(value, Mapping):
        return {name: _expanded(inner, values, f"{where}.{name}") for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_expanded(inner, values, f"{where}[{n}]") for n, inner in enumerate(value)]
    return value


def _value(name: str, values: Mapping[str, str], where: str) -> str:
    value = values.get(name)
    if not value:
        raise ConfigError(
            f"extra config: {where} names ${{{name}}}, but the environment has no {name}; "
            "set it, or write the value itself"
        )
    return value
