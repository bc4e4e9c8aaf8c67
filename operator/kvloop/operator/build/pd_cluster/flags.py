"""Flags as a command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def command_line(flags: Mapping[str, Any]) -> list[str]:
    """`--name value` of each; None: left out; True: the name alone; objects as JSON."""
    words: list[str] = []
    for name, value in flags.items():
        if value is None or value is False:
            continue
        words.append(f"--{name}")
        if value is not True:
            words.append(_word(value))
    return words


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    return f"{value:g}" if isinstance(value, float) else str(value)
