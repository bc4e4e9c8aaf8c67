"""Reports of made-up runs, equal under a seed, for whatever reads reports."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kvloop.benchmark.arms import ARMS, Arm, Segment
from kvloop.benchmark.driver.driven import Driven
from kvloop.benchmark.results.build import About, build_report
from kvloop.benchmark.results.document import DriverCost, Report, SegmentResult, Spread
from kvloop.benchmark.results.goodput import Objectives
from kvloop.benchmark.sample import Failure, Sample, Sources
from kvloop.benchmark.workloads.plan import Ceiling, Content, Conversation, Said, Turn

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
                held = _held(shape, round_)
                # A rate starts each conversation at its time; else clients hold them in turn.
                lanes = shape.clients if rate is None else len(held)
                for lane in range(lanes):
                    start = began if rate is None else began + lane * shape.turns / rate
                    chosen = held[lane::lanes]
                    end = _hold(rng, run, shape, arm, step, round_, start, chosen)
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
    prompt = prompt_tokens(turn)
    reusable = reusable_tokens(turn) if arm != "all_miss" else 0
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


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeUpLoad:
    """The Workload that a made-up run held; it says nothing."""

    shape: Shape
    kind: str = "multi-turn"
    content: Content = "token-ids"

    @property
    def conversations(self) -> tuple[Conversation, ...]:
        turns = (Turn(output_length=ANSWER_TOKENS),) * self.shape.turns
        return (Conversation(turns=turns),) * self.shape.conversations

    @property
    def ceiling(self) -> Ceiling:
        prompts = [prompt_tokens(turn) for turn in range(1, self.shape.turns + 1)]
        reusable = [reusable_tokens(turn) for turn in range(1, self.shape.turns + 1)]
        return Ceiling(
            tokens=self.shape.conversations * sum(prompts),
            reusable_tokens=self.shape.conversations * sum(reusable),
            words="every turn repeats its history",
        )

    def say(self, conversation: int, turn: int) -> Said:
        raise NotImplementedError("nobody asks a made-up load")

    def describe(self) -> dict[str, object]:
        return {
            "clients": self.shape.clients,
            "turns": self.shape.turns,
            "request_length": REQUEST_TOKENS,
            "output_length": ANSWER_TOKENS,
            "seed": 0,
        }


def report_of(shape: Shape, run: Run) -> Report:
    """The report that `kvloop bench` would make of it."""
    driven = Driven(
        started_at="2026-11-22T16:00:00+00:00",
        duration_s=run.segments[-1].ended_at,
        server_name="kvloop" if shape.has_sources else "other",
        samples=tuple(sorted(run.samples, key=lambda s: s.ended_at)),
        failures=tuple(sorted(run.failures, key=lambda f: f.at_s)),
        segments=tuple(run.segments),
        cost=DriverCost(
            lag_ms=Spread(mean=0.2, p50=0.1, p90=0.4, p99=1.3, max=4.0),
            cpu_share=0.07,
            most_streams=shape.clients,
            is_bottleneck=False,
            words="the driver was never more than 4 ms late",
        ),
    )
    return build_report(
        about=About(
            title=f"{shape.conversations} conversations of {shape.turns} turns",
            command="kvloop bench multi-turn http://127.0.0.1:8000 --arms on,bypassed --seed 0",
            version="0.1.0",
            hardware="2 shared cores, AMD Zen 3, no GPU",
            server_url="http://127.0.0.1:8000",
            model="SmolLM2-135M-Instruct",
        ),
        workload=MadeUpLoad(shape=shape),
        plan=[planned(shape, segment) for segment in run.segments],
        driven=driven,
        objectives=Objectives(ttft_ms=500.0),
        price_per_gpu_hour=2.5,
    )


def planned(shape: Shape, segment: SegmentResult) -> Segment:
    return Segment(
        arm=segment.arm,
        step=segment.step,
        round=segment.round,
        conversations=tuple(_held(shape, segment.round)),
        salt=f"{segment.arm}-{segment.step}",
        rate=segment.rate,
    )


def _held(shape: Shape, round_: int) -> range:
    return range(round_, shape.conversations, shape.rounds)


def prompt_tokens(turn: int) -> int:
    return REQUEST_TOKENS * turn + ANSWER_TOKENS * (turn - 1)


def reusable_tokens(turn: int) -> int:
    return max(0, prompt_tokens(turn) - REQUEST_TOKENS - 1)
