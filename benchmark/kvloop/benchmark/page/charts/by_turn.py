"""Times by turn, with and without reuse: to the first token, and to the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.page import ranges, units
from kvloop.benchmark.page.charts import series
from kvloop.benchmark.page.figure import NOTHING_ANSWERED, Figure, Frame, arm_key, empty
from kvloop.benchmark.page.scale import for_times
from kvloop.benchmark.results.document import Report, Spread, Summary
from kvloop.benchmark.sample import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Time:
    """What of each request is drawn."""

    name: str
    title: str
    axis: str
    of: Callable[[Sample], float]
    """In seconds."""
    of_summary: Callable[[Summary], Spread | None]


TTFT = Time(
    name="ttft-by-turn",
    title="Time to first token, by turn",
    axis="time to first token",
    of=lambda sample: sample.ttft_s,
    of_summary=lambda summary: summary.ttft_ms,
)
E2E = Time(
    name="e2e-by-turn",
    title="Time to the end of the answer, by turn",
    axis="end to end",
    of=lambda sample: sample.e2e_s,
    of_summary=lambda summary: summary.e2e_ms,
)


def by_turn(report: Report, time: Time) -> Figure:
    """A series for each arm that answered anything."""
    found = _found(report, time)
    arms = [a.arm for a in report.arms if any(arm == a.arm for arm, _ in found)]
    if not arms:
        return empty(time.name, time.title, NOTHING_ANSWERED)
    is_band = len({turn for _, turn in found}) >= series.BANDS_FROM
    return Figure(
        name=time.name,
        title=time.title,
        explanation=series.spans_words(is_band=is_band, has_low=bool(report.samples)),
        key=arm_key(arms),
        picture=_draw(Frame(), time, arms, found),
    )


def _found(report: Report, time: Time) -> dict[ranges.Key, ranges.Range]:
    """From the summaries where the report was written without its samples."""
    if report.samples:
        return ranges.of_samples(report.samples, lambda sample: sample.turn, time.of)
    return {
        (arm.arm, turn.turn): ranges.of_spread(spread, turn.summary.requests)
        for arm in report.arms
        for turn in arm.turns
        if (spread := time.of_summary(turn.summary)) is not None
    }


def _draw(
    frame: Frame, time: Time, arms: Sequence[Arm], found: dict[ranges.Key, ranges.Range]
) -> Markup:
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
        time.title,
        frame.y_axis(y, series.time_title(time.axis, unit, y), units.tick),
        frame.x_axis(ticks, "turn of the conversation", is_numeric=False),
        *lines,
    )


def _places(frame: Frame, turns: Sequence[int]) -> dict[int, float]:
    slot = (frame.right_at - frame.left) / len(turns)
    return {turn: frame.left + (i + 0.5) * slot for i, turn in enumerate(turns)}
