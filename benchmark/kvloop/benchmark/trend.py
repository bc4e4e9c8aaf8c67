"""Whether something that is sampled over time stays bounded. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvloop.benchmark.results.stats import percentile


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Of a series; in the series' own unit."""

    first: float
    last: float
    p50: float
    p99: float
    max: float
    slope_per_min: float
    """Of the straight line that fits best."""
    grown: float
    """What that line gained from the first sample to the last."""


def trend(at_s: Sequence[float], values: Sequence[float]) -> Trend:
    """Times ascend, two samples at least."""
    assert len(at_s) == len(values) >= 2, (len(at_s), len(values))
    ordered = sorted(values)
    slope = _slope(at_s, values)
    return Trend(
        first=values[0],
        last=values[-1],
        p50=percentile(ordered, 0.5),
        p99=percentile(ordered, 0.99),
        max=ordered[-1],
        slope_per_min=60 * slope,
        grown=slope * (at_s[-1] - at_s[0]),
    )


def _slope(at_s: Sequence[float], values: Sequence[float]) -> float:
    """Least squares; 0 where all samples were taken at one time."""
    middle = sum(at_s) / len(at_s)
    spread = sum((at - middle) ** 2 for at in at_s)
    if not spread:
        return 0.0
    mean = sum(values) / len(values)
    return (
        sum((at - middle) * (value - mean) for at, value in zip(at_s, values, strict=True)) / spread
    )
