"""Intervals by drawing conversations again, with replacement. Pure: equal seeds, equal ends.

A conversation's requests are not independent of each other, so whole conversations are drawn (with
the branches that share their history: a *unit*). Where two sides held the same conversations, both
get the same draw; what makes a conversation long or slow then cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

ROUNDS = 4000
MIN_UNITS = 5
"""With fewer an interval would say more about chance than about the server."""
_CELLS = 1 << 21
"""Draws times units that are held at once."""

Counts: TypeAlias = NDArray[np.int64]
"""How often each unit was drawn: one row a draw, one column a unit."""
Floats: TypeAlias = NDArray[np.float64]
ByUnit: TypeAlias = Sequence[Sequence[float]]
"""Each unit's numbers; a unit may have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A number and what it could as well have been, 95 % of the time."""

    value: float
    low: float | None
    high: float | None
    """None with fewer than `MIN_UNITS` units."""
    num_units: int
    """Of the smaller side."""


class Statistic(Protocol):
    """A number of a side, for every draw of its units."""

    @property
    def num_units(self) -> int:
        """Columns of `counts`."""

    def __call__(self, counts: Counts) -> Floats:
        """One value a row; not finite where a draw has nothing to tell it from."""


class Ratio:
    """A sum over a sum: a mean (sum over number), a hit rate (cached over prompt tokens)."""

    def __init__(self, above: Sequence[float], below: Sequence[float]) -> None:
        """One number a unit, of each."""
        assert len(above) == len(below)
        self._above = np.asarray(above, dtype=np.float64)
        self._below = np.asarray(below, dtype=np.float64)

    @property
    def num_units(self) -> int:
        return len(self._above)

    def __call__(self, counts: Counts) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            values: Floats = (counts @ self._above) / (counts @ self._below)
        return values


def mean(values: ByUnit) -> Ratio:
    """Over all values of the units drawn."""
    return Ratio([math.fsum(each) for each in values], [len(each) for each in values])


class Total:
    """A sum over the units drawn."""

    def __init__(self, values: Sequence[float]) -> None:
        """One number a unit."""
        self._values = np.asarray(values, dtype=np.float64)

    @property
    def num_units(self) -> int:
        return len(self._values)

    def __call__(self, counts: Counts) -> Floats:
        total: Floats = counts @ self._values
        return total


class Quantile:
    """Of all values of the units drawn, between ranks as `stats.percentile` has it; exact.

    The sorted values are cut into cells, about as many as a cell has values. How often a draw has
    values before each cell is one product of matrices; only the cell with its rank is walked.
    """

    def __init__(self, values: ByUnit, share: float) -> None:
        assert 0 <= share <= 1
        self._share, self._num_units = share, len(values)
        owners = np.repeat(np.arange(len(values)), [len(each) for each in values])
        flat = np.fromiter((v for each in values for v in each), np.float64, len(owners))
        order = np.argsort(flat, kind="stable")
        self._values = flat[order]
        width = math.isqrt(len(flat)) + 1
        # What fills the last cell belongs to a unit that is never drawn.
        filler = np.full(-len(flat) % width, len(values))
        self._owners = np.concatenate((owners[order], filler)).reshape(-1, width)
        self._before = np.zeros((len(self._owners) + 1, len(values)))
        for cell, inside in enumerate(self._owners):
            num = np.bincount(inside, minlength=len(values) + 1)[:-1]
            self._before[cell + 1] = self._before[cell] + num

    @property
    def num_units(self) -> int:
        return self._num_units

    def __call__(self, counts: Counts) -> Floats:
        before = (counts @ self._before.T).astype(np.int64)
        totals = before[:, -1]
        found = np.full(len(counts), np.nan)
        rows = np.flatnonzero(totals)
        ranks = self._share * (totals[rows] - 1)
        below = np.floor(ranks).astype(np.int64)
        above = np.minimum(below + 1, totals[rows] - 1)
        first, second = (self._at(counts[rows], before[rows], each) for each in (below, above))
        found[rows] = first + (second - first) * (ranks - below)
        return found

    def _at(self, counts: Counts, before: Counts, ranks: Counts) -> Floats:
        """Of each draw, the value at its rank."""
        cells = (before <= ranks[:, None]).sum(axis=1) - 1
        every = np.arange(len(counts))
        padded = np.pad(counts, ((0, 0), (0, 1)))
        seen = np.cumsum(padded[every[:, None], self._owners[cells]], axis=1)
        places = (before[every, cells, None] + seen <= ranks[:, None]).sum(axis=1)
        values: Floats = self._values[cells * self._owners.shape[1] + places]
        return values


def ratio(arm: Statistic, control: Statistic, *, is_paired: bool = True, seed: int = 0) -> Interval:
    """arm / control; paired: both sides' units are the same conversations, in the same order."""
    sides = _sides(arm, control, is_paired, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _interval([a / b for a, b in sides], min(arm.num_units, control.num_units))


def difference(
    arm: Statistic, control: Statistic, *, is_paired: bool = True, seed: int = 0
) -> Interval:
    """arm - control, as `ratio`."""
    sides = _sides(arm, control, is_paired, seed)
    return _interval([a - b for a, b in sides], min(arm.num_units, control.num_units))


def single(statistic: Statistic, *, seed: int = 0) -> Interval:
    """Of one side."""
    draws = _draws(statistic.num_units, seed)
    return _interval([statistic(counts) for counts in draws], statistic.num_units)


def paired_units(
    arm: Mapping[int, Sequence[float]], control: Mapping[int, Sequence[float]]
) -> tuple[ByUnit, ByUnit]:
    """The units that both have, in one order."""
    both = sorted(arm.keys() & control.keys())
    return [arm[unit] for unit in both], [control[unit] for unit in both]


def _sides(
    arm: Statistic, control: Statistic, is_paired: bool, seed: int
) -> Iterator[tuple[Floats, Floats]]:
    if is_paired:
        assert arm.num_units == control.num_units
        for counts in _draws(arm.num_units, seed):
            yield arm(counts), control(counts)
    else:
        most = max(arm.num_units, control.num_units)
        ours = _draws(arm.num_units, seed, most)
        theirs = _draws(control.num_units, seed + 1, most)
        for one, other in zip(ours, theirs, strict=True):
            yield arm(one), control(other)


def _draws(num_units: int, seed: int, most: int = 0) -> Iterator[Counts]:
    """Each unit once (what was seen), then `ROUNDS` draws, in blocks that fit `most` units."""
    yield np.ones((1, num_units), dtype=np.int64)
    if max(num_units, most) < MIN_UNITS:
        return
    chance = np.random.Generator(np.random.PCG64(seed))
    block = max(1, _CELLS // max(num_units, most))
    for begun in range(0, ROUNDS, block):
        size = min(block, ROUNDS - begun)
        yield chance.multinomial(num_units, [1 / num_units] * num_units, size=size)


def _interval(every: Sequence[Floats], num_units: int) -> Interval:
    (value,) = every[0].tolist()
    drawn = np.concatenate(every[1:]) if num_units >= MIN_UNITS else np.empty(0)
    drawn = drawn[np.isfinite(drawn)]
    # A draw without an answer (no hit in it, say) is left out; half of them would be no interval.
    if len(drawn) < ROUNDS / 2:
        return Interval(value=value, low=None, high=None, num_units=num_units)
    cut = tail(num_units)
    low, high = np.quantile(drawn, (cut, 1 - cut)).tolist()
    return Interval(value=value, low=low, high=high, num_units=num_units)


def tail(num_units: int, level: float = 0.95) -> float:
    """The share cut off at each end: less than 2.5 % with few units.

    Percentiles of few draws are too narrow: by sqrt((n - 1) / n), and by the normal's quantile
    where Student's is due (Hesterberg 2015, "expanded percentile interval").
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    wide = _student(z, num_units - 1) * math.sqrt(num_units / (num_units - 1))
    return NormalDist().cdf(-wide)


def _student(z: float, freedom: int) -> float:
    """Student's quantile from the normal's by Cornish and Fisher; within 0.3 % from 4 degrees."""
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
