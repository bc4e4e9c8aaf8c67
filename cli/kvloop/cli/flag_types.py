"""Parsers of flag values; argparse puts the flag's name before their messages."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


def port(text: str) -> int:
    """A TCP port from 1 to 65535."""
    return _whole(text, 1, 65535)


def positive_int(text: str) -> int:
    """A whole number above 0."""
    return _whole(text, 1, None)


def count(text: str) -> int:
    """A whole number, 0 or above."""
    return _whole(text, 0, None)


def positive_float(text: str) -> float:
    """A finite number above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


def not_negative_float(text: str) -> float:
    """A finite number, 0 or above."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of 0 or above, got {text!r}")
    return value


def url(text: str) -> str:
    """An http(s) URL with a host; a trailing slash is dropped."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError(f"must be a URL like http://127.0.0.1:30000, got {text!r}")
    return text.rstrip("/")


def whole_range(text: str) -> tuple[int, int]:
    """LOW:HIGH with 0 <= LOW < HIGH."""
    low, _, high = text.partition(":")
    if not (low.isdecimal() and high.isdecimal() and int(low) < int(high)):
        raise argparse.ArgumentTypeError(f"must be LOW:HIGH with LOW below HIGH, got {text!r}")
    return int(low), int(high)


def amount(text: str) -> int | tuple[int, int]:
    """A whole number above 0, or LOW:HIGH of them with LOW <= HIGH."""
    parts = text.split(":")
    if len(parts) <= 2 and all(part.isdecimal() for part in parts):
        low, high = int(parts[0]), int(parts[-1])
        if 1 <= low <= high:
            return low if len(parts) == 1 else (low, high)
    raise argparse.ArgumentTypeError(
        f"must be a whole number above 0, or LOW:HIGH with LOW not above HIGH, got {text!r}"
    )


def seconds(text: str) -> float | tuple[float, float]:
    """Seconds of 0 or above, or LOW:HIGH of them with LOW <= HIGH."""
    parts = [_number(part) for part in text.split(":")]
    if len(parts) <= 2 and 0 <= parts[0] <= parts[-1] < math.inf:
        return parts[0] if len(parts) == 1 else (parts[0], parts[1])
    raise argparse.ArgumentTypeError(
        f"must be seconds of 0 or above, or LOW:HIGH with LOW not above HIGH, got {text!r}"
    )


def json_object(text: str) -> dict[str, Any]:
    """A JSON object such as {"root": "/var/cache/kvloop"}, or @FILE that holds one.

    What lies in a file is in no process list: the place for a backend's credentials.
    """
    if text.startswith("@"):
        text = _content(Path(text[1:]))
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object, got {_shortened(text)}")
    return value


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


def _content(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is not text"
        raise argparse.ArgumentTypeError(f"cannot read {str(path)!r}: {words}") from error


def _whole(text: str, low: int, high: int | None) -> int:
    wanted = f"of {low} or above" if high is None else f"from {low} to {high}"
    value = int(text) if text.removeprefix("-").isdecimal() else low - 1
    if value < low or (high is not None and value > high):
        raise argparse.ArgumentTypeError(f"must be a whole number {wanted}, got {text!r}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
