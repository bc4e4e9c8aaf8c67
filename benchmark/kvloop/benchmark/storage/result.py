"""Rates, latencies and shares of the limit, out of the runs. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from kvloop.benchmark.results.stats import percentile
from kvloop.benchmark.storage.load import PHASES, Phase
from kvloop.benchmark.storage.measure import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One arm in one phase, over all rounds."""

    arm: str
    phase: Phase
    bytes_per_s: float
    """Median of the rounds."""
    call_p50_ms: float
    call_p99_ms: float
    share_of_limit: float | None
    """Median of the rounds' ratios to the limit's rate in the same round; None for the limit."""
    pages_missed: int


def rows(runs: Sequence[Run], object_bytes: int, limit: str) -> list[Row]:
    """One row for each phase and arm, phase by phase."""
    arms = list(dict.fromkeys(run.arm for run in runs))
    return [_row(runs, object_bytes, limit, arm, phase) for phase in PHASES for arm in arms]


def _row(runs: Sequence[Run], object_bytes: int, limit: str, arm: str, phase: Phase) -> Row:
    mine = [run for run in runs if (run.arm, run.phase) == (arm, phase)]
    limits = {run.round: run for run in runs if (run.arm, run.phase) == (limit, phase)}
    calls = sorted(seconds for run in mine for seconds in run.call_seconds)
    shares = [_rate(run) / _rate(limits[run.round]) for run in mine if _rate(limits[run.round])]
    return Row(
        arm=arm,
        phase=phase,
        bytes_per_s=statistics.median(_rate(run) for run in mine) * object_bytes,
        call_p50_ms=1e3 * percentile(calls, 0.5),
        call_p99_ms=1e3 * percentile(calls, 0.99),
        share_of_limit=statistics.median(shares) if shares and arm != limit else None,
        pages_missed=sum(run.pages_missed for run in mine),
    )


def _rate(run: Run) -> float:
    """Pages a second."""
    return run.pages / run.seconds
