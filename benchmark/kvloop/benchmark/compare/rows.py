"""A pair of tracks as rows of numbers. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from kvloop.benchmark.compare.comparison import Row, Verdict
from kvloop.benchmark.compare.metrics import Metric, of_answers, of_load
from kvloop.benchmark.compare.pairs import have_one_goal, whole
from kvloop.benchmark.compare.tracks import Track
from kvloop.benchmark.compare.verdict import Tolerances, judge, why
from kvloop.benchmark.results.bootstrap import difference, ratio

MAX_TURNS = 16
"""Turns with rows of their own."""


def rows(a: Track, b: Track, is_paired: bool, tolerances: Tolerances) -> list[Row]:
    """One for each number that both have, single turns last."""
    return sorted(_rows(a, b, is_paired, tolerances), key=lambda row: "_turn_" in row.metric)


def _rows(a: Track, b: Track, is_paired: bool, tolerances: Tolerances) -> Iterator[Row]:
    for metrics_a, metrics_b in (_answers_of(a, b, is_paired), _loads_of(a, b, is_paired)):
        theirs = {metric.name: metric for metric in metrics_b}
        for metric in metrics_a:
            if metric.name in theirs:
                yield _row(a, b, metric, theirs[metric.name], is_paired, tolerances)


def _answers_of(a: Track, b: Track, is_paired: bool) -> tuple[Iterable[Metric], Iterable[Metric]]:
    units_a, units_b = whole(a, b, is_paired)
    both = _turns(a, units_a) & _turns(b, units_b)
    turns = sorted(both)[:MAX_TURNS] if len(both) > 1 else []
    return of_answers(a, units_a, turns), of_answers(b, units_b, turns)


def _loads_of(a: Track, b: Track, is_paired: bool) -> tuple[Iterable[Metric], Iterable[Metric]]:
    units_a, units_b = a.conversations, b.conversations
    if is_paired:  # one list for both: a draw takes the same conversations
        units_a = units_b = sorted({*units_a, *units_b})
    goal = a.goodput if have_one_goal(a, b) else None
    return of_load(a, units_a, goal), of_load(b, units_b, goal)


def _turns(track: Track, units: Sequence[int]) -> set[int]:
    return {turn for unit in units for _, turn in track.turns(unit)}


def _row(
    a: Track, b: Track, ours: Metric, theirs: Metric, is_paired: bool, tolerances: Tolerances
) -> Row:
    change_of = ratio if ours.scale == "ratio" else difference
    change = change_of(theirs.statistic, ours.statistic, is_paired=is_paired)
    tolerance = tolerances.of(ours.name)
    values = _value(ours), _value(theirs)
    # That nothing was answered, or even sent, needs no interval.
    is_all_lost = ours.name == "error_share" and bool(a.samples) and not b.samples
    verdict: Verdict = (
        "regression" if is_all_lost else judge(change, ours.better, ours.scale, tolerance)
    )
    return Row(
        arm=a.arm,
        step=a.step,
        rate=a.rate,
        metric=ours.name,
        unit=ours.unit,
        better=ours.better,
        scale=ours.scale,
        a=values[0],
        b=values[1],
        change=_finite(change.value),
        low=change.low,
        high=change.high,
        num_conversations=change.num_units,
        tolerance=_finite(tolerance),
        verdict=verdict,
        why=why(change),
    )


def _value(metric: Metric) -> float | None:
    seen = np.ones((1, metric.statistic.num_units), dtype=np.int64)
    return _finite(float(metric.statistic(seen)[0]))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
