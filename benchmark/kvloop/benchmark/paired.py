"""What something costs, by alternating pairs of runs with and without it. Pure."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

Arm = TypeVar("Arm")
ROUNDS = 10_000
"""Of the bootstrap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """A cost as a share: 0.02 is 2 % more."""

    median: float
    low: float
    high: float
    """The ends of the bootstrap's 95 % interval of the median."""
    num_pairs: int

    def verdict(self, bar: float, plainly: bool = False) -> str:
        """Whether the bar is met, in words; `plainly`: by the median, whatever the interval."""
        if plainly:
            within = "met" if self.median <= bar else f"missed by {self.median - bar:.1%}"
        elif self.high <= bar:
            within = "met: all of the interval is below"
        elif self.low <= bar:
            within = "met: the interval includes it"
        else:
            within = f"missed: all of the interval is above, by {self.low - bar:.1%} at least"
        return (
            f"{self.median:+.1%} (95 %: {self.low:+.1%} to {self.high:+.1%}, "
            f"{self.num_pairs} pairs; bar {bar:.0%}: {within})"
        )


def overhead(with_it: Sequence[float], without: Sequence[float], seed: int = 0) -> Overhead:
    """From costs (more is worse) of runs that were made in pairs, in order."""
    ratios = [one / other for one, other in zip(with_it, without, strict=True)]
    chance = random.Random(seed)
    medians = sorted(
        statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(ROUNDS)
    )
    return Overhead(
        median=statistics.median(ratios) - 1,
        low=medians[ROUNDS * 25 // 1000] - 1,
        high=medians[ROUNDS * 975 // 1000 - 1] - 1,
        num_pairs=len(ratios),
    )


def alternating(first: Arm, second: Arm, num_pairs: int) -> Iterator[tuple[Arm, Arm]]:
    """Each pair's order: who goes first changes from pair to pair."""
    for number in range(num_pairs):
        yield (second, first) if number % 2 else (first, second)
