"""What driving cost, and whether that shows in the numbers. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.results.document import DriverCost, Spread
from kvloop.benchmark.sample import Sample

MOST_CPU_SHARE = 0.9
MOST_LAG_SHARE = 0.1
"""Of an arm's median time to the first token, or between tokens, whichever is the shortest."""
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
    if samples and lag_ms is not None and lag_ms.p99 > limit_ms:
        reasons.append(
            f"its event loop was late by {lag_ms.p99:.1f} ms (p99), and more than {limit_ms:.1f} "
            "ms shows in these times"
        )
    if cpu_share > MOST_CPU_SHARE:
        reasons.append(f"it used {cpu_share:.0%} of one core, which is all it can")
    words = _kept_up(lag_ms, cpu_share, most_streams)
    if reasons:
        words = (
            f"The driver was a bottleneck at {most_streams} streams: {' and '.join(reasons)}. "
            f"{_effect(lag_ms, limit_ms)}{_waited(wait_share)} Drive fewer streams, or on a "
            "faster, quieter machine."
        )
    return DriverCost(
        lag_ms=lag_ms,
        cpu_share=cpu_share,
        most_streams=most_streams,
        is_bottleneck=bool(reasons),
        words=words,
    )


def most_lag_ms(samples: Sequence[Sample]) -> float:
    """The lag that would show: 10 % of the shortest median of an arm, 2 ms at least.

    By arm: the fast one of two would hide behind a median of both.
    """
    by_arm: dict[Arm, list[Sample]] = {}
    for sample in samples:
        by_arm.setdefault(sample.arm, []).append(sample)
    medians = [median for mine in by_arm.values() for median in _medians_s(mine)]
    return max(min(medians, default=0.0) * 1000 * MOST_LAG_SHARE, LEAST_LAG_MS)


def _medians_s(samples: Sequence[Sample]) -> Iterator[float]:
    yield statistics.median(sample.ttft_s for sample in samples)
    if itl := [sample.tpot_s for sample in samples if sample.tpot_s]:
        yield statistics.median(itl)


def _kept_up(lag_ms: Spread | None, cpu: float, most_streams: int) -> str:
    lag = f"event loop late by {lag_ms.p99:.1f} ms (p99)" if lag_ms else "no lag was seen"
    return f"The driver kept up with {most_streams} streams: {lag}, {cpu:.0%} of one core used."


def _effect(lag_ms: Spread | None, limit_ms: float) -> str:
    """No more than the lag tells: a late one in a hundred leaves a median as it is."""
    if lag_ms is None or lag_ms.p99 <= limit_ms:
        return "Times may be longer than the server's."
    if lag_ms.p50 <= limit_ms:
        return "The slowest times are longer than the server's."
    return "Times are longer than the server's."


def _waited(share: float | None) -> str:
    """Schedulers count a CPU limit's pauses as waiting, too."""
    if share is None or share <= _TELLING_WAIT:
        return ""
    return f" It waited for a core for {share:.0%} of the time: others had it, or a CPU limit."
