"""Numbers as a person reads them; a number never parts from its unit."""

from __future__ import annotations

import math

SPACE = "\u00a0"
"""At which no line breaks."""


def digits(value: float) -> str:
    """Three that count, no exponent: 0.0123, 1.23, 12.3, 1,230."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "-"
    rounded = float(f"{value:.3g}")
    places = 2 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, min(places, 6))}f}"


def duration(ms: float | None) -> str:
    """350 ms, 1.23 s, 4 min 10 s; a dash for None."""
    if ms is None:
        return "-"
    if ms < 999.5:
        return f"{digits(ms)}{SPACE}ms"
    if ms < 119_500:
        return f"{digits(ms / 1000)}{SPACE}s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    return f"{minutes:,}{SPACE}min{SPACE}{seconds}{SPACE}s"


def share(value: float | None) -> str:
    """Of one, in per cent; a dash for None."""
    if value is None:
        return "-"
    percent = 100 * value
    # 99.96 % is not all, 0.04 % is not nothing.
    if percent in (0, 100) or 10 <= percent < 99:
        return f"{percent:.0f}{SPACE}%"
    places = 1 if 0.05 <= percent < 99.95 else 2
    return f"{percent:.{places}f}{SPACE}%"


def count(value: int | None, one: str = "", many: str = "") -> str:
    """12,345, or `12,345 requests`; a dash for None."""
    if value is None:
        return "-"
    return f"{value:,} {one if value == 1 else many or one + 's'}" if one else f"{value:,}"


def tick(value: float) -> str:
    """An axis's label: round values without idle zeros."""
    return f"{value:,.6f}".rstrip("0").rstrip(".")
