"""A plot with what stands around it, and the axes inside it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.page import looks
from kvloop.benchmark.page.scale import Scale
from kvloop.benchmark.page.svg import drawing, element, group, join, line, text


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    """A line of a plot's key."""

    swatch: Markup
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A plot of the page."""

    name: str
    """Its id on the page."""
    title: str
    explanation: str
    """What is drawn, in a sentence or two."""
    key: Sequence[KeyEntry]
    picture: Markup | None
    """None: there is nothing to draw; `note` says why."""
    note: str | None = None
    is_wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The plot's inside within the picture; in picture units, of which text is 13 high."""

    width: float = 560.0
    height: float = 330.0
    left: float = 84.0
    right: float = 26.0
    top: float = 14.0
    bottom: float = 50.0

    @property
    def right_at(self) -> float:
        """The inside's right end."""
        return self.width - self.right

    @property
    def bottom_at(self) -> float:
        """The inside's lower end."""
        return self.height - self.bottom

    def y_axis(self, scale: Scale, title: str, label: Callable[[float], str]) -> Markup:
        """Labels, faint lines across, and the title along the axis."""
        ticks = scale.ticks
        middle = (self.top + self.bottom_at) / 2
        turned = element(
            "text",
            title,
            x=0,
            y=0,
            text_anchor="middle",
            class_="axis-title",
            transform=f"translate(18 {middle:.1f}) rotate(-90)",
        )
        return group(
            *(line((self.left, scale.at(t)), (self.right_at, scale.at(t)), "grid") for t in ticks),
            *(text((self.left - 7, scale.at(t) + 4), label(t), anchor="end") for t in ticks),
            turned,
            class_="axis",
        )

    def x_axis(
        self, ticks: Sequence[tuple[float, str]], title: str, *, is_numeric: bool = True
    ) -> Markup:
        """`ticks`: places and labels; labels that would overlap are left out."""
        shown = spaced(ticks)
        base = self.bottom_at
        marks = [line((x, base), (x, base + 5), "tick") for x, _ in shown] if is_numeric else []
        middle = (self.left + self.right_at) / 2
        return group(
            line((self.left, base), (self.right_at, base), "base"),
            *marks,
            *(text((x, base + 19), label, anchor="middle") for x, label in shown),
            text((middle, self.height - 9), title, anchor="middle", class_="axis-title"),
            class_="axis",
        )

    def draw(self, label: str, *parts: str) -> Markup:
        """The picture."""
        return drawing(self.width, self.height, label, *parts)


def spaced(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Every, every second, fifth, tenth... label, so that none touches the next."""
    for every in (1, 2, 5, 10, 20, 50, 100, 200, 500):
        shown = list(ticks[::every])
        pairs = itertools.pairwise(shown)
        if all(b[0] - a[0] > 5 * (len(a[1]) + len(b[1])) + 8 for a, b in pairs):
            return shown
    return list(ticks[:1])


def arm_key(arms: Sequence[Arm]) -> list[KeyEntry]:
    """What each arm's marks look like."""
    return [KeyEntry(swatch=_arm_swatch(arm), label=looks.NAMES[arm]) for arm in arms]


def area_entry(class_: str, label: str) -> KeyEntry:
    """A filled box."""
    box = element("rect", x=3, y=1, width=16, height=12, class_=f"area {class_}")
    return KeyEntry(swatch=_swatch(box), label=label)


def line_entry(class_: str, label: str) -> KeyEntry:
    """A stroke."""
    return KeyEntry(swatch=_swatch(line((1, 7), (21, 7), class_)), label=label)


def failure_entry() -> KeyEntry:
    """A failed request."""
    return KeyEntry(swatch=_swatch(looks.cross((11, 7))), label="failed request")


def _arm_swatch(arm: Arm) -> Markup:
    return _swatch(join([line((1, 7), (21, 7), f"line {arm}"), looks.mark(arm, (11, 7))]))


def _swatch(inside: Markup) -> Markup:
    return element("svg", inside, viewBox="0 0 22 14", class_="swatch", aria_hidden="true")


def empty(name: str, title: str, why: str) -> Figure:
    """A plot of nothing, which says why."""
    return Figure(name=name, title=title, explanation="", key=(), picture=None, note=why)


NOTHING_ANSWERED = "No request was answered: there is nothing to draw."
