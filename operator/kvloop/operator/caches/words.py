"""Figures for people, and selectors for the scale subresource."""

from __future__ import annotations

from kvloop.operator.build.shared_cache.frame import pods_of
from kvloop.operator.types.shared_cache import SharedCache

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def in_words(num_bytes: int) -> str:
    """12.5 GiB."""
    value, unit = float(num_bytes), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {_UNITS[unit]}".replace(".0 ", " ")


def selector_text(cache: SharedCache, component: str) -> str:
    """As kubectl takes it."""
    return ",".join(f"{key}={value}" for key, value in sorted(pods_of(cache, component).items()))
