"""The middle of some times and how far most of them reach. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.page import units
from kvloop.benchmark.results.document import Spread
from kvloop.benchmark.results.stats import percentile
from kvloop.benchmark.sample import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """In milliseconds."""

    low: float
    """The fastest tenth is below; the median where the report has no samples."""
    middle: float
    """The median."""
    high: float
    """The slowest tenth is above."""
    num: int

    @property
    def words(self) -> str:
        """For whoever rests the mouse on it."""
        below = f"{units.duration(self.low)} to " if self.low < self.middle else "up to "
        return (
            f"median {units.duration(self.middle)}, most {below}{units.duration(self.high)} "
            f"({units.count(self.num, 'request')})"
        )


def of_times(seconds: Sequence[float]) -> Range:
    """Of at least one."""
    ordered = sorted(1000 * value for value in seconds)
    low, middle, high = (percentile(ordered, share) for share in (0.1, 0.5, 0.9))
    return Range(low=low, middle=middle, high=high, num=len(ordered))


def of_spread(spread: Spread, num: int) -> Range:
    """From a summary, which knows no fastest tenth."""
    return Range(low=spread.p50, middle=spread.p50, high=spread.p90, num=num)


Key = tuple[Arm, int]


def of_samples(
    samples: Sequence[Sample], key: Callable[[Sample], int], time: Callable[[Sample], float]
) -> dict[Key, Range]:
    """Of `time(sample)` in seconds, by arm and `key(sample)`."""
    times: defaultdict[Key, list[float]] = defaultdict(list)
    for sample in samples:
        times[sample.arm, key(sample)].append(time(sample))
    return {found: of_times(seconds) for found, seconds in times.items()}
