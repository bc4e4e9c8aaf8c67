"""TTFT by prompt length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from kvloop.benchmark.page import looks, units
from kvloop.benchmark.page.charts import series
from kvloop.benchmark.page.figure import NOTHING_ANSWERED, Figure, Frame, arm_key, empty
from kvloop.benchmark.page.ranges import of_spread
from kvloop.benchmark.page.scale import Scale, for_times, from_zero
from kvloop.benchmark.page.svg import group, titled
from kvloop.benchmark.page.thinning import thin
from kvloop.benchmark.results.document import ArmResult, Report, Summary
from kvloop.benchmark.sample import Sample

NAME = "ttft-by-length"
TITLE = "Time to first token, by prompt length"
MOST_POINTS = 1200
_LINES = (
    "Lines join the medians of ranges of lengths, each drawn at its mean length; bars reach up to "
    "the slowest tenth."
)


class _Axes(NamedTuple):
    x: Scale
    y: Scale
    unit: series.TimeUnit


def ttft_by_length(report: Report) -> Figure:
    """Each request as a faint point, and each arm's medians of ranges of lengths."""
    arms = [a for a in report.arms if a.all.ttft_ms is not None]
    if not arms:
        return empty(NAME, TITLE, NOTHING_ANSWERED)
    thinned = thin(report.samples, MOST_POINTS)
    return Figure(
        name=NAME,
        title=TITLE,
        explanation=("Faint points are requests. " if report.samples else "") + _LINES,
        key=arm_key([a.arm for a in arms]),
        picture=_draw(Frame(), arms, thinned.samples),
        note=thinned.words,
    )


def _draw(frame: Frame, arms: Sequence[ArmResult], samples: Sequence[Sample]) -> Markup:
    axes = _axes(frame, arms, samples)
    y_title = series.time_title("time to first token", axes.unit, axes.y)
    return frame.draw(
        TITLE,
        frame.y_axis(axes.y, y_title, units.tick),
        frame.x_axis([(axes.x.at(t), units.tick(t)) for t in axes.x.ticks], "prompt tokens"),
        _cloud(samples, axes),
        *(series.series(a.arm, _places(a, axes.x), axes.y, axes.unit.ms) for a in arms),
    )


def _axes(frame: Frame, arms: Sequence[ArmResult], samples: Sequence[Sample]) -> _Axes:
    summaries = [length.summary for a in arms for length in a.lengths]
    times = [s.ttft_ms.p90 for s in summaries if s.ttft_ms is not None]
    times += [1000 * s.ttft_s for s in samples]
    lengths = [_mean_length(s) for s in summaries] + [float(s.prompt_tokens) for s in samples]
    unit = series.time_unit(max(times))
    return _Axes(
        x=from_zero(lengths, frame.left, frame.right_at),
        y=for_times([t / unit.ms for t in times], frame.bottom_at, frame.top),
        unit=unit,
    )


def _mean_length(summary: Summary) -> float:
    return summary.prompt_tokens / summary.requests if summary.requests else 0.0


def _places(arm: ArmResult, x: Scale) -> list[series.Place]:
    return [
        series.Place(
            x.at(_mean_length(length.summary)),
            of_spread(length.summary.ttft_ms, length.summary.requests),
            f"{units.count(length.low)} to {units.count(length.high - 1)} prompt tokens",
        )
        for length in arm.lengths
        if length.summary.ttft_ms is not None
    ]


def _cloud(samples: Sequence[Sample], axes: _Axes) -> Markup:
    return group(*(_point(sample, axes) for sample in samples), class_="cloud")


def _point(sample: Sample, axes: _Axes) -> Markup:
    at = (axes.x.at(sample.prompt_tokens), axes.y.at(1000 * sample.ttft_s / axes.unit.ms))
    words = (
        f"{units.count(sample.prompt_tokens)} prompt tokens: {units.duration(1000 * sample.ttft_s)}"
    )
    return titled(f"{looks.NAMES[sample.arm]}, {words}", looks.mark(sample.arm, at, 2.0))
