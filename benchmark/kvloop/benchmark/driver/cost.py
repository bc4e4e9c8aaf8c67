"""What driving cost, and whether that shows in the numbers. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from kvloop.benchmark.results.document import DriverCost, Spread
from kvloop.benchmark.sample import Sample

MOST_CPU_SHARE = 0.9
MOST_LAG_SHARE = 0.1
"""Of the median time to the first token, or between tokens, whichever is shorter."""
LEAST_LAG_MS = 2.0
"""Never called a bottleneck below this: timers of a loop are off by up to 1 ms by themselves."""


def judge_cost(
    samples: Sequence[Sample], lag_ms: Spread | None, cpu_share: float, most_streams: int
) -> DriverCost:
    """The verdict: p99 of the lag against the times measured, and the CPU against one core."""
    limit_ms = most_lag_ms(samples)
    reasons = []
    if lag_ms is not None and lag_ms.p99 > limit_ms:
        reasons.append(
            f"its event loop was late by {lag_ms.p99:.1f} ms (p99), and more than {limit_ms:.1f} "
            "ms shows in these times"
        )
    if cpu_share > MOST_CPU_SHARE:
        reasons.append(f"it used {cpu_share:.0%} of one core, which is all it can")
    return DriverCost(
        lag_ms=lag_ms,
        cpu_share=cpu_share,
        most_streams=most_streams,
        is_bottleneck=bool(reasons),
        words=_words(reasons, lag_ms, cpu_share, most_streams),
    )


def most_lag_ms(samples: Sequence[Sample]) -> float:
    """The lag that would show: 10 % of the shorter median, 2 ms at least."""
    ttft = [sample.ttft_s for sample in samples]
    itl = [sample.tpot_s for sample in samples if sample.tpot_s]
    medians = [statistics.median(times) for times in (ttft, itl) if times]
    return max(min(medians, default=0.0) * 1000 * MOST_LAG_SHARE, LEAST_LAG_MS)


def _words(reasons: Sequence[str], lag_ms: Spread | None, cpu: float, most_streams: int) -> str:
    if reasons:
        return (
            f"The driver was a bottleneck at {most_streams} streams: {' and '.join(reasons)}. "
            "Times are longer than the server's: drive fewer streams, or on a faster, quieter "
            "machine."
        )
    lag = f"its event loop was late by {lag_ms.p99:.1f} ms (p99)" if lag_ms else "no lag was seen"
    return f"The driver kept up with {most_streams} streams: {lag}, {cpu:.0%} of one core used."
