"""TTFT by turn, with and without reuse."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.page import ranges, units
from kvloop.benchmark.page.charts import series
from kvloop.benchmark.page.figure import NOTHING_ANSWERED, Figure, Frame, arm_key, empty
from kvloop.benchmark.page.scale import for_times
from kvloop.benchmark.results.document import Report

NAME = "ttft-by-turn"
TITLE = "Time to first token, by turn"


def ttft_by_turn(report: Report) -> Figure:
    """A series for each arm that answered anything."""
    summaries = {(a.arm, t.turn): t.summary for a in report.arms for t in a.turns}
    found = ranges.ttft_by(report, lambda sample: sample.turn, summaries)
    arms = [a.arm for a in report.arms if any(arm == a.arm for arm, _ in found)]
    if not arms:
        return empty(NAME, TITLE, NOTHING_ANSWERED)
    is_band = len({turn for _, turn in found}) >= series.BANDS_FROM
    return Figure(
        name=NAME,
        title=TITLE,
        explanation=series.spans_words(is_band=is_band, has_low=bool(report.samples)),
        key=arm_key(arms),
        picture=_draw(Frame(), arms, found),
    )


def _draw(frame: Frame, arms: Sequence[Arm], found: dict[ranges.Key, ranges.Range]) -> Markup:
    unit = series.time_unit(max(r.middle for r in found.values()))
    y = for_times([r.high / unit.ms for r in found.values()], frame.bottom_at, frame.top)
    at = _places(frame, sorted({turn for _, turn in found}))
    beside = series.dodge(arms, 0.7 * (frame.right_at - frame.left) / len(at))
    lines = (
        series.series(
            arm,
            [
                series.Place(x + beside(arm), found[arm, turn], f"turn {turn}")
                for turn, x in at.items()
                if (arm, turn) in found
            ],
            y,
            unit.ms,
        )
        for arm in arms
    )
    ticks = [(x, str(turn)) for turn, x in at.items()]
    return frame.draw(
        TITLE,
        frame.y_axis(y, series.time_title("time to first token", unit, y), units.tick),
        frame.x_axis(ticks, "turn of the conversation", is_numeric=False),
        *lines,
    )


def _places(frame: Frame, turns: Sequence[int]) -> dict[int, float]:
    slot = (frame.right_at - frame.left) / len(turns)
    return {turn: frame.left + (i + 0.5) * slot for i, turn in enumerate(turns)}
