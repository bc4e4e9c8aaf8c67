"""What driving cost, and whether that shows in the numbers. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from kvloop.benchmark.results.document import DriverCost, Spread
from kvloop.benchmark.sample import Sample

MOST_CPU_SHARE = 0.9
MOST_LAG_SHARE = 0.1
"""Of the median time to the first token, or between tokens, whichever is shorter."""
_TELLING_WAIT = 0.05
LEAST_LAG_MS = 2.0
"""Never called a bottleneck below this: timers of a loop are off by up to 1 ms by themselves."""


def judge_cost(
    samples: Sequence[Sample],
    lag_ms: Spread | None,
    cpu_share: float,
    most_streams: int,
    wait_share: float | None = None,
) -> DriverCost:
    """The verdict: p99 of the lag against the times measured, and the CPU against one core.

    `wait_share`: of the time, how long it waited for a core that others had; no reason by itself.
    """
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
        words=_words(reasons, lag_ms, cpu_share, most_streams, wait_share or 0.0),
    )


def most_lag_ms(samples: Sequence[Sample]) -> float:
    """The lag that would show: 10 % of the shorter median, 2 ms at least."""
    ttft = [sample.ttft_s for sample in samples]
    itl = [sample.tpot_s for sample in samples if sample.tpot_s]
    medians = [statistics.median(times) for times in (ttft, itl) if times]
    return max(min(medians, default=0.0) * 1000 * MOST_LAG_SHARE, LEAST_LAG_MS)


def _words(
    reasons: Sequence[str], lag_ms: Spread | None, cpu: float, most_streams: int, waited: float
) -> str:
    if not reasons:
        lag = f"event loop late by {lag_ms.p99:.1f} ms (p99)" if lag_ms else "no lag was seen"
        return f"The driver kept up with {most_streams} streams: {lag}, {cpu:.0%} of one core used."
    others = ""
    if waited > _TELLING_WAIT:
        others = f" Other processes kept it from a core for {waited:.0%} of the time."
    return (
        f"The driver was a bottleneck at {most_streams} streams: {' and '.join(reasons)}. Times "
        f"are longer than the server's.{others} Drive fewer streams, or on a faster, quieter "
        "machine."
    )
