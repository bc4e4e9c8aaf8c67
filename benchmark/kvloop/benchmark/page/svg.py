"""SVG as escaped strings. Colours come from the page's style sheet, by class."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

Value = str | int | float | None
Point = tuple[float, float]


def element(name: str, *children: str, **attributes: Value) -> Markup:
    """`class_="a"` gives `class="a"`, `text_anchor` gives `text-anchor`; None is left out.

    Children that are not Markup are escaped.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_written(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(parts: Sequence[str]) -> Markup:
    """One after the other."""
    return Markup("").join(parts)


def group(*children: str, **attributes: Value) -> Markup:
    """A `<g>`."""
    return element("g", *children, **attributes)


def text(at: Point, words: str, *, anchor: str = "start", class_: str | None = None) -> Markup:
    """One line; `at` is its base line's start, middle or end."""
    return element("text", words, x=at[0], y=at[1], text_anchor=anchor, class_=class_)


def line(start: Point, end: Point, class_: str) -> Markup:
    """A straight one."""
    return element("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_=class_)


def path(points: Sequence[Point], class_: str, *, is_closed: bool = False) -> Markup:
    """Straight from point to point; closed ones are areas."""
    steps = "L".join(f"{_written(x)} {_written(y)}" for x, y in points)
    return element("path", d=f"M{steps}{'Z' if is_closed else ''}", class_=class_)


def titled(words: str, mark: Markup) -> Markup:
    """The mark with words that show when the mouse rests on it."""
    return group(element("title", words), mark)


def drawing(width: float, height: float, label: str, *children: str) -> Markup:
    """The whole picture; `label` is read out in its place."""
    return element(
        "svg",
        *children,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_written(width)} {_written(height)}",
        role="img",
        aria_label=label,
    )


def _written(value: str | int | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
