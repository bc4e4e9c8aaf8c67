"""A simulated run as data: what `--json` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kvloop.benchmark.results.document import Spread
from kvloop.benchmark.results.stats import spread_ms
from kvloop.benchmark.simulate.cluster import Run, Use
from kvloop.benchmark.simulate.config import Sizes
from kvloop.benchmark.simulate.served import Served, Tokens, add_tokens

SCHEMA = "kvloop.bench.simulate/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What a user wants; None: no wish."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    share: float = 0.95
    """Of requests that must meet both."""

    @property
    def is_set(self) -> bool:
        """Whether there is any wish."""
        return self.ttft_ms is not None or self.tpot_ms is not None

    def is_met(self, one: Served) -> bool:
        """By one request."""
        is_soon = self.ttft_ms is None or 1000 * one.ttft_s <= self.ttft_ms
        is_quick = self.tpot_ms is None or one.tpot_s is None or 1000 * one.tpot_s <= self.tpot_ms
        return is_soon and is_quick


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Where the time to the first token went; spreads over requests."""

    reserve_ms: Spread | None
    queue_ms: Spread | None
    compute_ms: Spread | None
    send_ms: Spread | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """One simulated run."""

    settings: dict[str, Any]
    """What a sweep varied, by flag; empty without one."""
    prefill: int
    decode: int
    devices: int
    sizes: Sizes
    requests: int
    duration_s: float
    tokens: Tokens
    hit_rate: float
    held_tokens: int
    """Of those found, how many decode had too: they were not sent."""
    ttft_ms: Spread | None
    tpot_ms: Spread | None
    e2e_ms: Spread | None
    stages: Stages
    use: Use
    requests_per_s: float
    output_tokens_per_s: float
    met: int
    met_share: float
    """Of requests that met the objective; 1 without one."""
    is_good: bool
    """Whether enough did."""
    price_per_hour: float | None
    price_per_1000_requests: float | None


def make_result(
    run: Run,
    *,
    objective: Objective,
    prefill: int,
    decode: int,
    devices_per_node: int = 1,
    gpu_hour_price: float | None = None,
    settings: dict[str, Any] | None = None,
) -> SimulationResult:
    """Sum a run up; the price is of all devices for as long as the load lasted."""
    all_served, seconds = run.served, run.duration_s
    tokens = add_tokens([one.found for one in all_served])
    met = sum(objective.is_met(one) for one in all_served)
    devices = (prefill + decode) * devices_per_node
    hourly = None if gpu_hour_price is None else gpu_hour_price * devices
    num = len(all_served)
    return SimulationResult(
        settings=settings or {},
        prefill=prefill,
        decode=decode,
        devices=devices,
        sizes=run.sizes,
        requests=num,
        duration_s=seconds,
        tokens=tokens,
        hit_rate=tokens.hit_rate,
        held_tokens=sum(one.held_tokens for one in all_served),
        ttft_ms=spread_ms(one.ttft_s for one in all_served),
        tpot_ms=spread_ms(one.tpot_s for one in all_served if one.tpot_s is not None),
        e2e_ms=spread_ms(one.e2e_s for one in all_served),
        stages=_stages(all_served),
        use=run.use,
        requests_per_s=num / seconds,
        output_tokens_per_s=sum(one.output_tokens for one in all_served) / seconds,
        met=met,
        met_share=met / num,
        is_good=met >= objective.share * num,
        price_per_hour=hourly,
        price_per_1000_requests=None if hourly is None else hourly * seconds / 3.6 / num,
    )


def cheapest(results: Sequence[SimulationResult]) -> SimulationResult | None:
    """Of those that meet the objective: fewest devices, then the lowest mean TTFT; None if none."""
    good = [result for result in results if result.is_good]

    def cost(result: SimulationResult) -> tuple[int, float]:
        return result.devices, result.ttft_ms.mean if result.ttft_ms is not None else 0.0

    return min(good, key=cost, default=None)


def _stages(all_served: Sequence[Served]) -> Stages:
    return Stages(
        reserve_ms=spread_ms(one.reserve_s for one in all_served),
        queue_ms=spread_ms(one.queue_s for one in all_served),
        compute_ms=spread_ms(one.compute_s for one in all_served),
        send_ms=spread_ms(one.send_s for one in all_served),
    )
