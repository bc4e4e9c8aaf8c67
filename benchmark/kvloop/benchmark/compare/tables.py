"""A comparison for the terminal, 100 columns wide."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kvloop.benchmark.compare.comparison import Comparison, Row, Side, Verdict

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
        console.print(_table(comparison, place, list(rows)))
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


def _table(comparison: Comparison, place: str, rows: list[Row]) -> Table:
    table = Table(title=escape(f"arm {place}"), title_justify="left")
    table.add_column("metric", no_wrap=True)
    for name in (comparison.a.name, comparison.b.name):
        table.add_column(escape(name), justify="right", overflow="fold", max_width=18)
    for head in ("B vs A", "95 %"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("verdict")
    for row in rows:
        low_high = (
            f"{_change(row.low, row)} to {_change(row.high, row)}" if row.low is not None else "-"
        )
        told = f"{row.verdict}: {row.why}" if row.why else row.verdict
        cells = (_amount(row.a, row), _amount(row.b, row), _change(row.change, row), low_high, told)
        table.add_row(f"{row.metric}", *map(escape, cells), style=STYLES[row.verdict])
    return table


def _amount(value: float | None, row: Row) -> str:
    if value is None:
        return "-"
    if row.scale == "points":
        return f"{value:.1%}"
    return f"{value:,.{0 if value >= 1000 else 1 if value >= 10 else 3}f} {row.unit}"


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
