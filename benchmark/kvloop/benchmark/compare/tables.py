"""A comparison for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby

from rich.console import Console
from rich.text import Text

from kvloop.benchmark.compare.comparison import Comparison, Row, Side, Verdict
from kvloop.benchmark.terminal import FittedTable

_WIDE = 100
_LETTERS = (18, 9)
"""Of a column's head, in `_WIDE` columns or fewer: verdicts are to stand beside the numbers."""

STYLES: dict[Verdict, str] = {
    "regression": "bold red",
    "maybe worse": "red",
    "same": "",
    "maybe better": "green",
    "improvement": "bold green",
    "cannot tell": "dim",
}


def show(comparison: Comparison, console: Console) -> None:
    """Print what was compared, a table an arm, what regressed, and what to know."""
    for line in _head(comparison):
        console.print(line, markup=False, soft_wrap=True)
    for place, rows in groupby(comparison.rows, key=lambda row: row.place):
        console.print(Text(f"arm {place} (times in ms, rates a second)"))
        console.print(_table(comparison, list(rows), _LETTERS[console.width < _WIDE]))
    for line in _warnings(comparison):
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    for line in _closing(comparison):
        console.print(line, markup=False, soft_wrap=True)


def words(row: Row) -> str:
    """A change as a sentence."""
    unit = "%" if row.scale == "ratio" else "points"
    tolerance = "any" if row.tolerance is None else f"{row.tolerance * 100:g} {unit}"
    return (
        f"{row.place}: {row.metric} {_amount(row.a, row)} -> {_amount(row.b, row)}: "
        f"{_change(row.change, row)} (95 %: {_change(row.low, row)} to {_change(row.high, row)}; "
        f"tolerance {tolerance})"
    )


def _head(comparison: Comparison) -> Iterator[str]:
    for letter, side in (("A", comparison.a), ("B", comparison.b)):
        yield f"{letter}  {side.name}: {_described(side)}"
    if comparison.is_paired:
        yield "both held the same conversations: intervals are of pairs"
    else:
        yield "DIFFERENT LOADS: each side's conversations are drawn by themselves"
    for name, (ours, theirs) in comparison.differences.items():
        yield f"  {name}: {ours} and {theirs}"


def _described(side: Side) -> str:
    return f"{side.model} at {side.url}, {side.started_at}, {side.hardware}"


def _table(comparison: Comparison, rows: list[Row], letters: int) -> FittedTable:
    names = (_head_of(side.name, letters) for side in (comparison.a, comparison.b))
    cells = [
        (
            row.metric,
            _number(row.a, row),
            _number(row.b, row),
            _change(row.change, row),
            _interval(row),
            row.verdict,
        )
        for row in rows
    ]
    return FittedTable(
        ("metric", *names, "B vs A", "95 %", "verdict"),
        cells,
        [STYLES[row.verdict] for row in rows],
    )


def _head_of(name: str, letters: int) -> str:
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def _interval(row: Row) -> str:
    if row.low is None or row.high is None:
        return "-"
    if row.scale == "points":
        return f"{100 * row.low:+.1f} to {100 * row.high:+.1f}"
    return f"{row.low:.3f} to {row.high:.3f}"


def _number(value: float | None, row: Row) -> str:
    if value is None:
        return "-"
    if row.scale == "points":
        return f"{value:.1%}"
    return f"{value:,.{0 if value >= 1000 else 1 if value >= 10 else 3}f}"


def _amount(value: float | None, row: Row) -> str:
    number = _number(value, row)
    return number if value is None or row.scale == "points" else f"{number} {row.unit}"


def _change(value: float | None, row: Row) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}x" if row.scale == "ratio" else f"{100 * value:+.1f} pt"


def _warnings(comparison: Comparison) -> Iterator[str]:
    yield from comparison.warnings
    for place, num in comparison.left_out.items():
        yield f"{place}: {num} conversations left out of the times: not the same turns answered"
    for side, only in ((comparison.a, comparison.only_in_a), (comparison.b, comparison.only_in_b)):
        if only:
            yield f"only in {side.name}: {', '.join(only)}"
    reasons = Counter((row.place, row.why) for row in comparison.rows if row.why)
    for (place, why), num in reasons.items():
        yield f"{place}: no interval for {num} of its numbers: {why}"
    if all(row.verdict == "cannot tell" for row in comparison.rows):
        yield "NOTHING CAN BE TOLD: that no regression is named does not mean that there is none"
    if comparison.answers_different:
        yield (
            f"{comparison.answers_different} of {comparison.answers_compared} answers to the same "
            "turn are not the same"
        )


def _closing(comparison: Comparison) -> Iterator[str]:
    yield comparison.rule + " (one run each: how runs differ among themselves is not in it)"
    counts = ", ".join(f"{len(comparison.of(verdict))} {verdict}" for verdict in STYLES)
    yield f"of {len(comparison.rows)} numbers: {counts}"
    for verdict in ("improvement", "regression"):
        yield from (f"{verdict.upper()} {words(row)}" for row in comparison.of(verdict))
