"""Reports of made-up runs, equal under a seed, for whatever reads reports."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from statistics import fmean

from kvloop.benchmark.arms import ARMS, Arm
from kvloop.benchmark.results.document import (
    ArmResult,
    CeilingResult,
    Claim,
    Counts,
    DriverCost,
    Goodput,
    LengthSummary,
    Rates,
    Report,
    Savings,
    SegmentResult,
    Server,
    Spread,
    StepResult,
    Summary,
    TurnSummary,
)
from kvloop.benchmark.sample import Failure, Sample, Sources

REQUEST_TOKENS = 250
ANSWER_TOKENS = 32
CAPACITY = 8.0
"""Requests a second at which the made-up server's answers begin to take longer."""


@dataclass(slots=True, kw_only=True)
class Run:
    """What a driver would have measured."""

    samples: list[Sample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    segments: list[SegmentResult] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What `make_report` was asked for."""

    arms: Sequence[Arm] = ARMS
    conversations: int = 20
    turns: int = 6
    rounds: int = 2
    rates: Sequence[float | None] = (None,)
    clients: int = 4
    fail_share: float = 0.0
    has_sources: bool = True
    has_hits: bool = True


def make_report(seed: int = 0, **shape: object) -> Report:
    """A run of `Shape(**shape)`: closed loop with one rate of None, else a rate sweep.

    `fail_share` of the requests fail and end their conversation; without `has_sources` the server
    names no tiers, without `has_hits` no cached tokens either (a server that is not kvloop).
    """
    wanted = Shape(**shape)  # type: ignore[arg-type]
    return report_of(wanted, make_run(seed, wanted))


def make_run(seed: int, shape: Shape) -> Run:
    """Segments one after the other: in each round every step and arm, in changing order."""
    rng = random.Random(seed)
    run, now = Run(), 0.0
    for step, rate in enumerate(shape.rates):
        for round_ in range(shape.rounds):
            for arm in _rotated(shape.arms, round_):
                began = now
                held = range(round_, shape.conversations, shape.rounds)
                for lane in range(shape.clients):
                    chosen = held[lane :: shape.clients]
                    end = _hold(rng, run, shape, arm, step, round_, began, chosen)
                    now = max(now, end)
                now += 0.2
                run.segments.append(
                    SegmentResult(
                        arm=arm, step=step, round=round_, rate=rate, began_at=began, ended_at=now
                    )
                )
    return run


def _rotated(arms: Sequence[Arm], by: int) -> list[Arm]:
    return [arms[(i + by) % len(arms)] for i in range(len(arms))]


def _hold(
    rng: random.Random,
    run: Run,
    shape: Shape,
    arm: Arm,
    step: int,
    round_: int,
    now: float,
    conversations: Iterable[int],
) -> float:
    """One client's conversations, one after the other; the time at which it is through."""
    now += rng.uniform(0, 0.3)
    for conversation in conversations:
        for turn in range(1, shape.turns + 1):
            if rng.random() < shape.fail_share:
                kind, message = rng.choice(FAULTS)
                run.failures.append(
                    Failure(
                        conversation=conversation,
                        turn=turn,
                        kind=kind,
                        message=message,
                        arm=arm,
                        step=step,
                        round=round_,
                        at_s=now,
                    )
                )
                now += 0.1
                break
            sample = _answer(rng, shape, arm, step, round_, now, conversation, turn)
            run.samples.append(sample)
            now = sample.ended_at + 0.01
    return now


FAULTS = (
    ("http_429", "the server answered 429: too many requests"),
    ("stalled", "no token for 30 s after 7 of 32"),
    ("connect", "cannot connect to 127.0.0.1:8000"),
)


def _answer(
    rng: random.Random,
    shape: Shape,
    arm: Arm,
    step: int,
    round_: int,
    now: float,
    conversation: int,
    turn: int,
) -> Sample:
    prompt = REQUEST_TOKENS * turn + ANSWER_TOKENS * (turn - 1)
    reusable = max(0, prompt - REQUEST_TOKENS - 1) if arm != "all_miss" else 0
    cached = reusable // 16 * 16 if arm in ("on", "l3_only") else 0
    rate = shape.rates[step]
    crowd = 1.0 if rate is None else 1 / max(0.08, 1 - rate / CAPACITY)
    load_s = cached * (0.0001 if arm == "on" else 0.0003)
    ttft = crowd * (0.04 + 0.0009 * (prompt - cached) + load_s) * rng.lognormvariate(0, 0.2)
    gaps = tuple(crowd**0.5 * 0.03 * rng.lognormvariate(0, 0.25) for _ in range(ANSWER_TOKENS - 1))
    return Sample(
        conversation=conversation,
        turn=turn,
        sent_at=now,
        ended_at=now + ttft + math.fsum(gaps),
        queued_s=0.0,
        ttft_s=ttft,
        itl_s=gaps,
        prompt_tokens=prompt,
        completion_tokens=ANSWER_TOKENS,
        reusable_tokens=reusable,
        cached_tokens=cached if shape.has_hits else None,
        sources=_sources(arm, prompt, cached, turn) if shape.has_sources else None,
        fallback=None,
        arm=arm,
        step=step,
        round=round_,
        answer_digest=f"{conversation}-{turn}",
    )


def _sources(arm: Arm, prompt: int, cached: int, turn: int) -> Sources:
    if arm == "l3_only":
        device, host, storage = 0, 0, cached
    else:
        device, host = cached // 2, cached // 4
        storage = cached - device - host
    by_decode = storage // turn
    return Sources(
        computed=prompt - cached,
        device=device,
        host=host,
        storage=storage,
        storage_by_prefill=storage - by_decode,
        storage_by_decode=by_decode,
    )


def report_of(shape: Shape, run: Run) -> Report:
    """The numbers of a run, by the plainest arithmetic."""
    arms = tuple(_arm(arm, shape, run) for arm in shape.arms)
    return Report(
        title=f"{shape.conversations} conversations of {shape.turns} turns",
        command="kvloop bench multi-turn http://127.0.0.1:8000 --arms on,bypassed --seed 0",
        version="0.1.0",
        hardware="2 shared cores, AMD Zen 3, no GPU",
        started_at="2026-11-22T16:00:00+00:00",
        duration_s=run.segments[-1].ended_at,
        server=Server(
            url="http://127.0.0.1:8000",
            model="SmolLM2-135M-Instruct",
            name="kvloop" if shape.has_sources else "other",
        ),
        workload={
            "kind": "multi-turn",
            "content": "token-ids",
            "clients": shape.clients,
            "conversations": shape.conversations,
            "turns": shape.turns,
            "request_length": REQUEST_TOKENS,
            "output_length": ANSWER_TOKENS,
            "seed": 0,
        },
        ceiling=CeilingResult(
            tokens=1000, reusable_tokens=740, rate=0.74, words="every turn repeats its history"
        ),
        arms=arms,
        steps=_steps(shape, run),
        claims=_claims(arms, shape),
        savings=_savings(arms),
        answers_compared=shape.conversations * shape.turns,
        answers_different=0,
        driver=DriverCost(
            lag_ms=Spread(mean=0.2, p50=0.1, p90=0.4, p99=1.3, max=4.0),
            cpu_share=0.07,
            most_streams=shape.clients,
            is_bottleneck=False,
            words="the driver was never more than 4 ms late",
        ),
        segments=tuple(run.segments),
        failures=tuple(run.failures),
        samples=tuple(sorted(run.samples, key=lambda s: s.sent_at)),
    )


def _arm(arm: Arm, shape: Shape, run: Run) -> ArmResult:
    samples = [s for s in run.samples if s.arm == arm]
    seconds = math.fsum(s.ended_at - s.began_at for s in run.segments if s.arm == arm)
    planned = shape.conversations * shape.turns * len(shape.rates)
    failures = [f for f in run.failures if f.arm == arm]
    return ArmResult(
        arm=arm,
        counts=_counts(planned, samples, failures),
        seconds=seconds,
        rates=_rates(samples, seconds),
        errors=dict(Counter(f.kind for f in failures).most_common()),
        fallbacks={},
        turns=tuple(
            TurnSummary(turn=t, summary=summarize([s for s in samples if s.turn == t]))
            for t in range(1, shape.turns + 1)
        ),
        lengths=_lengths(samples),
        later_turns=summarize([s for s in samples if s.turn > 1]),
        all=summarize(samples),
        goodput=_goodput(samples, planned, seconds),
    )


def _counts(planned: int, samples: Sequence[Sample], failures: Sequence[Failure]) -> Counts:
    return Counts(
        planned=planned,
        completed=len(samples),
        failed=len(failures),
        not_sent=planned - len(samples) - len(failures),
        short_answers=0,
    )


def _rates(samples: Sequence[Sample], seconds: float) -> Rates:
    return Rates(
        requests_per_s=len(samples) / seconds,
        output_tokens_per_s=sum(s.completion_tokens for s in samples) / seconds,
        prompt_tokens_per_s=sum(s.prompt_tokens for s in samples) / seconds,
    )


def _goodput(samples: Sequence[Sample], planned: int, seconds: float) -> Goodput:
    met = sum(s.ttft_s <= 0.5 for s in samples)
    return Goodput(
        ttft_ms=500.0, tpot_ms=None, met=met, share=met / planned, requests_per_s=met / seconds
    )


def _lengths(samples: Sequence[Sample]) -> tuple[LengthSummary, ...]:
    exponents = sorted({s.prompt_tokens.bit_length() for s in samples})
    return tuple(
        LengthSummary(
            low=2 ** (e - 1),
            high=2**e,
            summary=summarize([s for s in samples if s.prompt_tokens.bit_length() == e]),
        )
        for e in exponents
    )


def _steps(shape: Shape, run: Run) -> tuple[StepResult, ...]:
    if len(shape.rates) == 1:
        return ()
    return tuple(
        _step(shape, run, step, rate, arm)
        for step, rate in enumerate(shape.rates)
        for arm in shape.arms
    )


def _step(shape: Shape, run: Run, step: int, rate: float | None, arm: Arm) -> StepResult:
    samples = [s for s in run.samples if s.arm == arm and s.step == step]
    failures = [f for f in run.failures if f.arm == arm and f.step == step]
    held = [s for s in run.segments if s.arm == arm and s.step == step]
    seconds = math.fsum(s.ended_at - s.began_at for s in held)
    planned = shape.conversations * shape.turns
    return StepResult(
        arm=arm,
        step=step,
        rate=rate,
        counts=_counts(planned, samples, failures),
        rates=_rates(samples, seconds),
        all=summarize(samples),
        goodput=_goodput(samples, planned, seconds),
    )


def _claims(arms: Sequence[ArmResult], shape: Shape) -> tuple[Claim, ...]:
    by_name = {arm.arm: arm for arm in arms}
    control = next((by_name[a] for a in ("bypassed", "all_miss") if a in by_name), None)
    if control is None or control.later_turns.ttft_ms is None:
        return ()
    claims = []
    for arm in arms:
        spread = arm.later_turns.ttft_ms
        if arm is control or spread is None:
            continue
        value = spread.p50 / control.later_turns.ttft_ms.p50
        claims.append(
            Claim(
                name="ttft_later_turns",
                arm=arm.arm,
                control=control.arm,
                value=value,
                low=0.93 * value,
                high=1.08 * value,
                num_conversations=shape.conversations,
                words=f"later turns' first token comes {1 / value:.2f} x sooner",
            )
        )
    return tuple(claims)


def _savings(arms: Sequence[ArmResult]) -> Savings | None:
    by_name = {arm.arm: arm for arm in arms}
    if "on" not in by_name or "bypassed" not in by_name:
        return None
    requests = max(1, by_name["on"].counts.completed)
    gpu_s = by_name["bypassed"].seconds - by_name["on"].seconds
    return Savings(
        arm="on",
        control="bypassed",
        gpu_s=gpu_s,
        low=0.9 * gpu_s,
        high=1.1 * gpu_s,
        per_1000_requests_s=1000 * gpu_s / requests,
        price_per_gpu_hour=2.5,
        price_per_1000_requests=1000 * gpu_s / requests / 3600 * 2.5,
        how="estimated from TTFT",
    )


def summarize(samples: Sequence[Sample]) -> Summary:
    """Totals and spreads of some samples."""
    prompt = sum(s.prompt_tokens for s in samples)
    reusable = sum(s.reusable_tokens for s in samples)
    counts = [s.cached_tokens for s in samples if s.cached_tokens is not None]
    cached = sum(counts) if counts else None
    return Summary(
        requests=len(samples),
        prompt_tokens=prompt,
        completion_tokens=sum(s.completion_tokens for s in samples),
        reusable_tokens=reusable,
        cached_tokens=cached,
        hit_rate=cached / prompt if cached is not None and prompt else None,
        reusable_rate=reusable / prompt if prompt else 0.0,
        ttft_ms=_spread(s.ttft_s for s in samples),
        itl_ms=_spread(gap for s in samples for gap in s.itl_s),
        tpot_ms=_spread(s.tpot_s for s in samples if s.tpot_s is not None),
        e2e_ms=_spread(s.e2e_s for s in samples),
        queued_ms=_spread(s.queued_s for s in samples),
        sources=_sum_sources([s.sources for s in samples if s.sources is not None]),
    )


def _spread(seconds: Iterable[float]) -> Spread | None:
    ordered = sorted(1000 * value for value in seconds)
    if not ordered:
        return None

    def rank(share: float) -> float:
        return ordered[round(share * (len(ordered) - 1))]

    return Spread(
        mean=fmean(ordered), p50=rank(0.5), p90=rank(0.9), p99=rank(0.99), max=ordered[-1]
    )


def _sum_sources(each: Sequence[Sources]) -> Sources | None:
    if not each:
        return None
    names = (f.name for f in fields(Sources))
    return Sources(**{name: sum(getattr(s, name) for s in each) for name in names})
