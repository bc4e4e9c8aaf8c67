"""What arms and tiers are called on the page, and how they are drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.page.svg import Point, element, path

NAMES: dict[Arm, str] = {
    "on": "cache on",
    "bypassed": "cache bypassed",
    "l3_only": "L3 only",
    "all_miss": "all miss",
}
MEANINGS: dict[Arm, str] = {
    "on": "as users run it: every tier is read and written",
    "bypassed": "no tier is read or written: every prompt is computed from its first token",
    "l3_only": "only the shared cache is read, not the nodes' own device and host memory",
    "all_miss": "every prompt begins with something that no other has: looked up, never found",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A place that prompt tokens come from."""

    class_: str
    name: str


TIERS = (
    Tier(class_="kept", name="kept by the decode node"),
    Tier(class_="device", name="device memory (L1)"),
    Tier(class_="host", name="host memory (L2)"),
    Tier(class_="by-prefill", name="shared cache (L3), written by prefill"),
    Tier(class_="by-decode", name="shared cache (L3), written by decode"),
    Tier(class_="storage", name="shared cache (L3), writer not named"),
    Tier(class_="cached", name="cached, tier not named"),
    Tier(class_="computed", name="computed"),
)


def mark(arm: Arm, at: Point, size: float = 4.0) -> Markup:
    """A filled point; arms differ in shape, not in colour alone."""
    return _SHAPES[arm](at, size, f"mark {arm}")


def cross(at: Point, size: float = 4.0) -> Markup:
    """A failure."""
    (x, y), s = at, size
    d = f"M{x - s:.1f} {y - s:.1f}l{2 * s:.1f} {2 * s:.1f}m0 {-2 * s:.1f}l{-2 * s:.1f} {2 * s:.1f}"
    return element("path", d=d, class_="failure")


def _circle(at: Point, size: float, class_: str) -> Markup:
    return element("circle", cx=at[0], cy=at[1], r=size, class_=class_)


def _square(at: Point, size: float, class_: str) -> Markup:
    side = 1.8 * size
    corner = (at[0] - side / 2, at[1] - side / 2)
    return element("rect", x=corner[0], y=corner[1], width=side, height=side, class_=class_)


def _triangle(at: Point, size: float, class_: str) -> Markup:
    (x, y), s = at, 1.2 * size
    return path([(x, y - s), (x + s, y + 0.8 * s), (x - s, y + 0.8 * s)], class_, is_closed=True)


def _diamond(at: Point, size: float, class_: str) -> Markup:
    (x, y), s = at, 1.3 * size
    return path([(x, y - s), (x + s, y), (x, y + s), (x - s, y)], class_, is_closed=True)


_SHAPES: dict[Arm, Callable[[Point, float, str], Markup]] = {
    "on": _circle,
    "bypassed": _square,
    "l3_only": _triangle,
    "all_miss": _diamond,
}
