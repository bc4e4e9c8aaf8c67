"""From values to places on the page. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

LOG_FROM = 25.0
"""How often the middle value the largest must be for an axis to be logarithmic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """`low` is drawn at `start`, `high` at `end`; both in the same unit as the values."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __post_init__(self) -> None:
        assert self.low < self.high and (self.low > 0 or not self.is_log)

    def at(self, value: float) -> float:
        """Where it is drawn; values beyond the ends are drawn at the ends."""
        held = min(max(value, self.low), self.high)
        if self.is_log:
            part = math.log(held / self.low) / math.log(self.high / self.low)
        else:
            part = (held - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    @property
    def ticks(self) -> tuple[float, ...]:
        """Round values within the scale."""
        return _log_ticks(self.low, self.high) if self.is_log else _ticks(self.low, self.high)


def from_zero(values: Sequence[float], start: float, end: float) -> Scale:
    """Linear from 0 to a round value at or above the largest."""
    top = max(values, default=0.0)
    return Scale(low=0.0, high=_round_up(top) if top > 0 else 1.0, start=start, end=end)


def for_times(values: Sequence[float], start: float, end: float) -> Scale:
    """From 0; logarithmic where few values are so large that the others would be flat."""
    positive = [value for value in values if value > 0]
    if not positive or max(positive) < LOG_FROM * median(positive):
        return from_zero(values, start, end)
    low, high = _log_down(min(positive)), _log_up(max(positive))
    return Scale(low=low, high=high, start=start, end=end, is_log=True)


def _step(span: float) -> float:
    """Of 1, 2, 5 times a power of ten: the one that gives four to eight steps."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next(factor * power for factor in (10, 5, 2, 1) if span / (factor * power) >= 4)


def _round_up(top: float) -> float:
    step = _step(top)
    return step * math.ceil(round(top / step, 9))


def _ticks(low: float, high: float) -> tuple[float, ...]:
    step = _step(high - low)
    first = math.ceil(round(low / step, 9))
    last = math.floor(round(high / step, 9))
    return tuple(round(n * step, 12) for n in range(first, last + 1))


def _log_down(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= value * 1.000001)


def _log_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return min(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * 0.999999)


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    wide = high / low > 1000
    factors = (1,) if wide else (1, 2, 5)
    every = [factor * 10.0**power for power in powers for factor in factors]
    return tuple(v for v in every if low * 0.999999 <= v <= high * 1.000001)
