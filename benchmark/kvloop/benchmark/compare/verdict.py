"""When a change is one. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase

from kvloop.benchmark.compare.comparison import Better, Scale, Verdict
from kvloop.benchmark.results.bootstrap import MIN_UNITS, Interval
from kvloop.shared_cache.errors import ConfigError

ERROR_TOLERANCE = 0.01
"""Of `error_share`, unless a rule says otherwise: 5 points of errors would be a lot."""
RULE = (
    "regression: all of the 95 % interval is worse than the tolerance; maybe worse: all of it is "
    "worse than no change; improvement and maybe better likewise; same: all of it is within the "
    "tolerance; cannot tell: all else"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerances:
    """How much worse a metric may be: 0.05 is 5 %, or 5 points of a share."""

    default: float = 0.05
    rules: tuple[tuple[str, float], ...] = ()
    """Metric names, with * and ? as in file names; the last that fits counts."""

    def __post_init__(self) -> None:
        for name, value in (("tolerance", self.default), *self.rules):
            if not value >= 0:
                raise ConfigError(f"the tolerance of {name} must be 0 or above, got {value}")

    def of(self, metric: str) -> float:
        """The tolerance of one metric."""
        for pattern, value in reversed(self.rules):
            if fnmatchcase(metric, pattern):
                return value
        return ERROR_TOLERANCE if metric == "error_share" else self.default

    def unused(self, metrics: set[str]) -> list[str]:
        """Patterns that fit none of `metrics`: a slip of the pen, or nothing to compare."""
        return [
            pattern
            for pattern, _ in self.rules
            if not any(fnmatchcase(metric, pattern) for metric in metrics)
        ]


def judge(interval: Interval, better: Better, scale: Scale, tolerance: float) -> Verdict:
    """By RULE; without an interval nothing can be told."""
    if interval.low is None or interval.high is None:
        return "cannot tell"
    ends = (_worsening(end, better, scale) for end in (interval.low, interval.high))
    least, most = sorted(ends)
    limit = math.log1p(tolerance) if scale == "ratio" else tolerance
    if least > limit:
        return "regression"
    if most < -limit:
        return "improvement"
    if -limit <= least and most <= limit:
        return "same"
    if least > 0:
        return "maybe worse"
    return "maybe better" if most < 0 else "cannot tell"


def why(interval: Interval) -> str:
    """Why there is no interval."""
    if interval.low is not None:
        return ""
    if interval.num_units < MIN_UNITS:
        return f"{interval.num_units} conversations, {MIN_UNITS} are needed"
    return "too few draws had a value"


def _worsening(change: float, better: Better, scale: Scale) -> float:
    """Above 0 the worse it got. Of a ratio its logarithm: half as fast is as far as twice."""
    if scale == "points":
        size = change
    elif change > 0:
        size = math.log(change)
    else:
        size = -math.inf
    return size if better == "lower" else -size
