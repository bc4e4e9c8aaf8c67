"""Medians with the span of most requests, joined from left to right: one series an arm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from markupsafe import Markup

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.page import looks
from kvloop.benchmark.page.ranges import Range
from kvloop.benchmark.page.scale import Scale
from kvloop.benchmark.page.svg import group, join, line, path, titled

BANDS_FROM = 13
"""Points in a series from which spans are areas: bars would stand too close."""


class Place(NamedTuple):
    """A range, where it is drawn, and what it is of."""

    x: float
    range: Range
    name: str


def series(arm: Arm, places: Sequence[Place], y: Scale, unit: float) -> Markup:
    """Spans, the line through the medians, and a point for each; `unit` ms are 1 on the axis."""
    middles = [(p.x, y.at(p.range.middle / unit)) for p in places]
    spans = (
        _band(arm, places, y, unit) if len(places) >= BANDS_FROM else _bars(arm, places, y, unit)
    )
    size = 4.0 if len(places) < BANDS_FROM else 2.5
    points = (
        titled(f"{looks.NAMES[arm]}, {p.name}: {p.range.words}", looks.mark(arm, at, size))
        for p, at in zip(places, middles, strict=True)
    )
    return group(spans, path(middles, f"line {arm}"), *points)


def _bars(arm: Arm, places: Sequence[Place], y: Scale, unit: float) -> Markup:
    return join(
        [
            line((p.x, y.at(p.range.low / unit)), (p.x, y.at(p.range.high / unit)), f"span {arm}")
            for p in places
        ]
    )


def _band(arm: Arm, places: Sequence[Place], y: Scale, unit: float) -> Markup:
    upper = [(p.x, y.at(p.range.high / unit)) for p in places]
    lower = [(p.x, y.at(p.range.low / unit)) for p in reversed(places)]
    return path([*upper, *lower], f"band {arm}", is_closed=True)


class TimeUnit(NamedTuple):
    """Of a time axis."""

    name: str
    ms: float


def time_unit(largest_ms: float) -> TimeUnit:
    """Seconds from two seconds on, else milliseconds."""
    return TimeUnit("s", 1000.0) if largest_ms >= 2000 else TimeUnit("ms", 1.0)


def time_title(words: str, unit: TimeUnit, y: Scale) -> str:
    """An axis's title with its unit."""
    return f"{words} ({unit.name}{', logarithmic' if y.is_log else ''})"


def spans_words(*, is_band: bool, has_low: bool) -> str:
    """What a plot of series shows, for its reader."""
    if is_band:
        middle, span = "Lines are medians", "areas reach"
    else:
        middle, span = "Points are medians", "bars reach"
    lowest = "from the fastest tenth " if has_low else "up "
    return f"{middle}; {span} {lowest}to the slowest tenth of the requests."


def dodge(arms: Sequence[Arm], slot: float) -> Callable[[Arm], float]:
    """How far beside its place an arm is drawn, so that no bar hides another's."""
    step = min(13.0, slot / len(arms)) if slot > 8 * len(arms) else 0.0
    return lambda arm: step * (arms.index(arm) - (len(arms) - 1) / 2)
