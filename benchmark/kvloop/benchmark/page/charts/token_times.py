"""Times between tokens, by arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.page import looks, units
from kvloop.benchmark.page.charts import series
from kvloop.benchmark.page.figure import Figure, Frame, arm_key, empty
from kvloop.benchmark.page.scale import Scale, for_times
from kvloop.benchmark.page.svg import group, line, text, titled
from kvloop.benchmark.results.document import Report, Spread

NAME = "token-times"
TITLE = "Time from token to token"
ROW = 26.0
HEAD = 30.0


class _Row(NamedTuple):
    arm: Arm
    spread: Spread
    y: float


class _Group(NamedTuple):
    title: str
    y: float
    rows: list[_Row]


def token_times(report: Report) -> Figure:
    """ITL over all tokens and TPOT over all requests."""
    kinds = {
        "ITL: between two tokens of an answer": [(a.arm, a.all.itl_ms) for a in report.arms],
        "TPOT: mean of an answer's tokens after its first": [
            (a.arm, a.all.tpot_ms) for a in report.arms
        ],
    }
    groups = _place(kinds)
    if not groups:
        return empty(NAME, TITLE, "No answer had a second token: there is nothing to draw.")
    arms = list(dict.fromkeys(row.arm for g in groups for row in g.rows))
    return Figure(
        name=NAME,
        title=TITLE,
        explanation="Points are medians; thick bars reach to 90 %, thin ones to 99 % of them.",
        key=arm_key(arms),
        picture=_draw(groups),
    )


def _place(kinds: dict[str, list[tuple[Arm, Spread | None]]]) -> list[_Group]:
    groups, y = [], 14.0
    for title, each in kinds.items():
        known = [(arm, spread) for arm, spread in each if spread is not None]
        if known:
            first = y + HEAD
            rows = [_Row(arm, spread, first + i * ROW) for i, (arm, spread) in enumerate(known)]
            groups.append(_Group(title, y + 8, rows))
            y = first + len(known) * ROW
    return groups


def _draw(groups: Sequence[_Group]) -> Markup:
    rows = [row for g in groups for row in g.rows]
    frame = Frame(left=16.0, height=rows[-1].y + 70)
    unit = series.time_unit(max(row.spread.p99 for row in rows))
    x = for_times([row.spread.p99 / unit.ms for row in rows], frame.left, frame.right_at)
    ticks = [(x.at(t), units.tick(t)) for t in x.ticks]
    return frame.draw(
        TITLE,
        *(line((at, frame.top), (at, frame.bottom_at), "grid") for at, _ in ticks),
        frame.x_axis(ticks, series.time_title("time", unit, x)),
        *(_group(g, x, unit) for g in groups),
    )


def _group(rows: _Group, x: Scale, unit: series.TimeUnit) -> Markup:
    return group(
        text((20, rows.y), rows.title, class_="row-title"),
        *(_row(row, x, unit) for row in rows.rows),
    )


def _row(row: _Row, x: Scale, unit: series.TimeUnit) -> Markup:
    p50, p90, p99 = (x.at(t / unit.ms) for t in (row.spread.p50, row.spread.p90, row.spread.p99))
    return titled(
        _words(row),
        group(
            line((p50, row.y), (p99, row.y), f"whisker {row.arm}"),
            line((p50, row.y), (p90, row.y), f"span {row.arm}"),
            looks.mark(row.arm, (p50, row.y), 5.0),
        ),
    )


def _words(row: _Row) -> str:
    s = row.spread
    return (
        f"{looks.NAMES[row.arm]}: median {units.duration(s.p50)}, 90 % within "
        f"{units.duration(s.p90)}, 99 % within {units.duration(s.p99)}, at most "
        f"{units.duration(s.max)}"
    )
