"""The run from its start to its end: who loaded the server, and what each request met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from kvloop.benchmark.page import looks, units
from kvloop.benchmark.page.charts import series
from kvloop.benchmark.page.figure import Figure, Frame, arm_key, empty, failure_entry
from kvloop.benchmark.page.scale import Scale, for_times
from kvloop.benchmark.page.svg import element, group, text, titled
from kvloop.benchmark.page.thinning import thin
from kvloop.benchmark.results.document import Report, SegmentResult
from kvloop.benchmark.sample import Failure, Sample

NAME = "timeline"
TITLE = "The run, from its start to its end"
MOST_SAMPLES = 2500
MOST_FAILURES = 500
LANE_AT, LANE_HEIGHT = 20.0, 14.0
FAILURES_AT = 48.0


class _Axes(NamedTuple):
    x: Scale
    y: Scale
    unit: series.TimeUnit
    minutes: bool


def timeline(report: Report) -> Figure:
    """Requests by when they were sent and their TTFT, failures above them, segments on top."""
    if not report.samples and not report.failures:
        return empty(NAME, TITLE, "This report was written without its single requests.")
    thinned = thin(report.samples, MOST_SAMPLES)
    arms = [a.arm for a in report.arms]
    notes = [thinned.words, _left_out(report.failures)]
    return Figure(
        name=NAME,
        title=TITLE,
        explanation=(
            "The bar on top: which arm loaded the server. Below it each request at the time it was "
            "sent, by its time to first token."
        ),
        key=arm_key(arms) + ([failure_entry()] if report.failures else []),
        picture=_draw(report, thinned.samples),
        note=" ".join(words for words in notes if words) or None,
        is_wide=True,
    )


def _left_out(failures: Sequence[Failure]) -> str | None:
    if len(failures) <= MOST_FAILURES:
        return None
    return f"The first {MOST_FAILURES} of {units.count(len(failures))} failures are drawn."


def _draw(report: Report, samples: Sequence[Sample]) -> Markup:
    # Failures alone need no room for times.
    frame = Frame(width=1140.0, height=380.0 if samples else 130.0, top=62.0)
    axes = _axes(frame, report, samples)
    factor, name = (60.0, "minutes") if axes.minutes else (1.0, "seconds")
    ticks = [(axes.x.at(t), units.tick(t)) for t in axes.x.ticks]
    y_title = series.time_title("time to first token", axes.unit, axes.y)
    return frame.draw(
        TITLE,
        frame.y_axis(axes.y, y_title, units.tick) if samples else "",
        frame.x_axis(ticks, f"{name} from the run's start"),
        *(_segment(segment, axes.x, factor) for segment in report.segments),
        group(*(_request(sample, axes, factor) for sample in samples), class_="requests"),
        group(*(_failure(f, axes.x, factor) for f in report.failures[:MOST_FAILURES])),
        text((frame.left - 7, LANE_AT + 11), "arm", anchor="end"),
    )


def _axes(frame: Frame, report: Report, samples: Sequence[Sample]) -> _Axes:
    ends = [s.ended_at for s in report.segments] + [f.at_s for f in report.failures]
    end = max([*ends, *(s.sent_at for s in samples), 0.001])
    minutes = end > 600
    largest = max((1000 * s.ttft_s for s in samples), default=0.0)
    unit = series.time_unit(largest)
    return _Axes(
        x=Scale(low=0, high=end / (60 if minutes else 1), start=frame.left, end=frame.right_at),
        y=for_times([1000 * s.ttft_s / unit.ms for s in samples], frame.bottom_at, frame.top),
        unit=unit,
        minutes=minutes,
    )


def _segment(segment: SegmentResult, x: Scale, factor: float) -> Markup:
    left, right = x.at(segment.began_at / factor), x.at(segment.ended_at / factor)
    box = element(
        "rect",
        x=left,
        y=LANE_AT,
        width=max(1.0, right - left),
        height=LANE_HEIGHT,
        class_=f"segment {segment.arm}",
    )
    rate = "" if segment.rate is None else f", {units.tick(segment.rate)} requests/s"
    return titled(
        f"{looks.NAMES[segment.arm]}, round {segment.round + 1}{rate}: "
        f"{segment.began_at:.1f} s to {segment.ended_at:.1f} s",
        box,
    )


def _request(sample: Sample, axes: _Axes, factor: float) -> Markup:
    at = (axes.x.at(sample.sent_at / factor), axes.y.at(1000 * sample.ttft_s / axes.unit.ms))
    words = (
        f"{looks.NAMES[sample.arm]}, conversation {sample.conversation}, turn {sample.turn}: "
        f"{units.duration(1000 * sample.ttft_s)}"
    )
    return titled(words, looks.mark(sample.arm, at, 2.5))


def _failure(failure: Failure, x: Scale, factor: float) -> Markup:
    words = (
        f"{looks.NAMES[failure.arm]}, conversation {failure.conversation}, turn {failure.turn}: "
        f"{failure.kind}: {failure.message[:200]}"
    )
    return titled(words, looks.cross((x.at(failure.at_s / factor), FAILURES_AT)))
