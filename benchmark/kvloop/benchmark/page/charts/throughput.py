"""Throughput against latency: the steps of a rate sweep, or the arms of a closed loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.page import looks, units
from kvloop.benchmark.page.charts import series
from kvloop.benchmark.page.figure import NOTHING_ANSWERED, Figure, Frame, arm_key, empty
from kvloop.benchmark.page.scale import Scale, for_times, from_zero
from kvloop.benchmark.page.svg import group, line, path, text, titled
from kvloop.benchmark.results.document import Report, Spread

NAME = "throughput"
TITLE = "Throughput against latency"
_SWEEP = (
    "Each point is a step of the rate sweep, with the offered requests a second beside it. "
    "Points that move up without moving right: the server has no more to give. "
)
_ARMS = "Each point is an arm, at the pace that its clients kept up. "
_POINTS = "Points are medians, bars reach up to the slowest tenth. Right and low is better."


class Point(NamedTuple):
    """What one arm gave at one load."""

    arm: Arm
    output_tokens_per_s: float
    ttft: Spread
    label: str
    """Stands beside the point; may be empty."""
    load: str


def throughput(report: Report) -> Figure:
    """Median TTFT over output tokens a second."""
    points = _steps(report) or _arms(report)
    if not points:
        return empty(NAME, TITLE, NOTHING_ANSWERED)
    return Figure(
        name=NAME,
        title=TITLE,
        explanation=(_SWEEP if report.steps else _ARMS) + _POINTS,
        key=arm_key(list(dict.fromkeys(p.arm for p in points))),
        picture=_draw(Frame(right=34.0), points),
    )


def _steps(report: Report) -> list[Point]:
    return [
        Point(
            step.arm,
            step.rates.output_tokens_per_s,
            step.all.ttft_ms,
            "" if step.rate is None else units.tick(step.rate),
            "closed loop" if step.rate is None else f"{units.tick(step.rate)} requests/s offered",
        )
        for step in report.steps
        if step.all.ttft_ms is not None
    ]


def _arms(report: Report) -> list[Point]:
    return [
        Point(a.arm, a.rates.output_tokens_per_s, a.all.ttft_ms, "", "all requests")
        for a in report.arms
        if a.all.ttft_ms is not None
    ]


def _draw(frame: Frame, points: Sequence[Point]) -> Markup:
    unit = series.time_unit(max(p.ttft.p50 for p in points))
    y = for_times([p.ttft.p90 / unit.ms for p in points], frame.bottom_at, frame.top)
    x = from_zero([p.output_tokens_per_s for p in points], frame.left, frame.right_at)
    arms = dict.fromkeys(p.arm for p in points)
    return frame.draw(
        TITLE,
        frame.y_axis(y, series.time_title("time to first token", unit, y), units.tick),
        frame.x_axis([(x.at(t), units.tick(t)) for t in x.ticks], "output tokens a second"),
        *(_curve(arm, [p for p in points if p.arm == arm], x, y, unit) for arm in arms),
    )


def _curve(arm: Arm, points: Sequence[Point], x: Scale, y: Scale, unit: series.TimeUnit) -> Markup:
    at = [(x.at(p.output_tokens_per_s), y.at(p.ttft.p50 / unit.ms)) for p in points]
    tops = [(place[0], y.at(p.ttft.p90 / unit.ms)) for p, place in zip(points, at, strict=True)]
    return group(
        *(line(place, top, f"span {arm}") for place, top in zip(at, tops, strict=True)),
        path(at, f"line {arm}"),
        *(
            titled(_words(p), looks.mark(arm, place, 4.5))
            for p, place in zip(points, at, strict=True)
        ),
        *(
            text((place[0] + 8, place[1] + 4), p.label, class_="point-label")
            for p, place in zip(points, at, strict=True)
            if p.label
        ),
    )


def _words(point: Point) -> str:
    return (
        f"{looks.NAMES[point.arm]}, {point.load}: {units.digits(point.output_tokens_per_s)} output "
        f"tokens/s; time to first token {units.duration(point.ttft.p50)} median, "
        f"{units.duration(point.ttft.p90)} at the slowest tenth"
    )
