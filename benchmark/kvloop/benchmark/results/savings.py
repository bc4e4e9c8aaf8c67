"""What reuse saved in seconds of computing, and their price. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.node_seconds import SegmentSeconds
from kvloop.benchmark.results import bootstrap
from kvloop.benchmark.results.bootstrap import Interval, Ratio
from kvloop.benchmark.results.document import Savings
from kvloop.benchmark.results.pairs import pair
from kvloop.benchmark.results.run_data import RunData
from kvloop.benchmark.sample import Sample

_MEASURED = "measured: the nodes' own seconds of forward passes (kvloop_step_seconds), by segment"
_ESTIMATED = (
    "estimated from TTFT, which includes waiting behind other requests: at most this was saved"
)


def savings(
    run: RunData, seconds: Sequence[SegmentSeconds], price_per_gpu_hour: float | None
) -> Savings | None:
    """Of arm `on` against `bypassed`, else `all_miss`; None without such a pair."""
    control = next((arm for arm in ("bypassed", "all_miss") if arm in run.arms), None)
    requests = len(run.part("on").samples)
    if control is None or not requests:
        return None
    saved, how = _measured(run, control, seconds), _MEASURED
    if saved is None:
        saved, how = _estimated(run, control), _ESTIMATED
    if saved is None:
        return None
    a_thousand = 1000 * saved.value
    price = price_per_gpu_hour
    return Savings(
        arm="on",
        control=control,
        gpu_s=saved.value * requests,
        low=None if saved.low is None else saved.low * requests,
        high=None if saved.high is None else saved.high * requests,
        per_1000_requests_s=a_thousand,
        price_per_gpu_hour=price,
        price_per_1000_requests=None if price is None else a_thousand / 3600 * price,
        how=how,
    )


def _measured(run: RunData, control: Arm, seconds: Sequence[SegmentSeconds]) -> Interval | None:
    """A request's seconds under the control less those under `on`; drawn by rounds."""
    spent = {(s.arm, s.step, s.round): s.seconds for s in seconds}
    ours: list[tuple[float, int]] = []
    theirs: list[tuple[float, int]] = []
    sides: tuple[Arm, Arm] = ("on", control)
    for step, round_ in product(run.steps, run.rounds):
        each = [
            (spent.get((arm, step, round_)), len(run.part(arm, step, round_).samples))
            for arm in sides
        ]
        known = [(time, num) for time, num in each if time is not None and num]
        if len(known) == 2:  # else a round would stand on one side only
            ours.append(known[0])
            theirs.append(known[1])
    if not ours:
        return None
    return bootstrap.difference(_per_request(theirs), _per_request(ours))


def _per_request(each: Sequence[tuple[float, int]]) -> Ratio:
    return Ratio([seconds for seconds, _ in each], [requests for _, requests in each])


def _estimated(run: RunData, control: Arm) -> Interval | None:
    units = pair(run, "on", control).units
    if not units:
        return None
    ours, theirs = [unit.arm for unit in units], [unit.control for unit in units]
    return bootstrap.difference(_mean_ttft(theirs), _mean_ttft(ours))


def _mean_ttft(units: Sequence[Sequence[Sample]]) -> Ratio:
    return bootstrap.mean([[sample.ttft_s for sample in unit] for unit in units])
