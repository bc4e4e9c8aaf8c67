"""What driving a load gave."""

from __future__ import annotations

from dataclasses import dataclass

from kvloop.benchmark.results.document import DriverCost, SegmentResult
from kvloop.benchmark.sample import Failure, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """All that was measured; times are seconds from the run's start, the warm-up left out."""

    started_at: str
    """UTC, ISO 8601."""
    duration_s: float
    server_name: str
    """kvloop, or `other`."""
    samples: tuple[Sample, ...]
    """In the order in which they were answered."""
    failures: tuple[Failure, ...]
    segments: tuple[SegmentResult, ...]
    cost: DriverCost
    is_cut_short: bool = False
    """Interrupted, or the server went away."""
    warnings: tuple[str, ...] = ()
