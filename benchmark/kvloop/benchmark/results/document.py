"""The report as data: what `--json` writes, and what `compare`, the page and `simulate` read.

Every value is plain JSON by `msgspec`. Times end with their unit. What a server does not report is
None, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.sample import Failure, Sample, Sources

SCHEMA = "kvloop.bench/2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Of some times, in milliseconds."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Of some requests: one turn's, one range of prompt lengths', all."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    reusable_tokens: int
    cached_tokens: int | None
    hit_rate: float | None
    """cached / prompt tokens; None where the server reports none."""
    reusable_rate: float
    """The most that hit_rate can be without pages of another conversation."""
    ttft_ms: Spread | None
    itl_ms: Spread | None
    tpot_ms: Spread | None
    e2e_ms: Spread | None
    queued_ms: Spread | None
    sources: Sources | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnSummary:
    """Of one turn."""

    turn: int
    summary: Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthSummary:
    """Of prompts with `low` to `high` tokens, `high` left out."""

    low: int
    high: int
    summary: Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """planned = completed + failed + not_sent."""

    planned: int
    completed: int
    failed: int
    not_sent: int
    """Turns whose conversation had failed before, or that the end of the run left out."""
    short_answers: int
    """Of the completed: fewer tokens than were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Over the seconds in which the arm loaded the server."""

    requests_per_s: float
    output_tokens_per_s: float
    prompt_tokens_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Goodput:
    """Requests that met every objective that was given; failed ones count as missed."""

    ttft_ms: float | None
    tpot_ms: float | None
    met: int
    share: float
    """Of planned requests."""
    requests_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult:
    """All that one arm showed, over all its steps and rounds."""

    arm: Arm
    counts: Counts
    seconds: float
    """Sum of its segments."""
    rates: Rates
    errors: dict[str, int]
    """Failures by kind, the commonest first."""
    fallbacks: dict[str, int]
    turns: tuple[TurnSummary, ...]
    lengths: tuple[LengthSummary, ...]
    later_turns: Summary
    all: Summary
    goodput: Goodput | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One step of a rate sweep, of one arm."""

    arm: Arm
    step: int
    rate: float | None
    """Requests a second that were offered; None: closed loop."""
    counts: Counts
    rates: Rates
    all: Summary
    goodput: Goodput | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A ratio of an arm to its control, from the same run."""

    name: str
    """Such as `ttft_later_turns`."""
    arm: Arm
    control: Arm
    value: float
    """arm / control; for times below 1 is better."""
    low: float | None
    high: float | None
    """The ends of the bootstrap's 95 % interval over conversations; None with fewer than 5."""
    num_conversations: int
    words: str
    """One sentence that a person understands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Savings:
    """What reuse saved, against the control arm of the same run."""

    arm: Arm
    control: Arm
    gpu_s: float
    low: float | None
    high: float | None
    """The ends of its 95 % interval; None where there is too little to tell."""
    per_1000_requests_s: float
    price_per_gpu_hour: float | None
    price_per_1000_requests: float | None
    how: str
    """`measured` by the nodes' own seconds of computing, or `estimated` from TTFT; in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverCost:
    """What driving the load cost this process, and whether that shows in the numbers."""

    lag_ms: Spread | None
    """By how much the event loop was late, sampled while a request was under way."""
    cpu_share: float
    """Of one core."""
    most_streams: int
    """Requests at the server at once, at most."""
    is_bottleneck: bool
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentResult:
    """When one arm alone loaded the server; seconds from the run's start."""

    arm: Arm
    step: int
    round: int
    rate: float | None
    began_at: float
    ended_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What was measured."""

    url: str
    model: str
    name: str
    """kvloop, or `other`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CeilingResult:
    """What the load could reuse at most, counted without a cache."""

    tokens: int
    reusable_tokens: int
    rate: float
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run of `kvloop bench`."""

    schema: str = SCHEMA
    title: str
    command: str
    """As typed, secrets left out."""
    version: str
    """kvloop's."""
    hardware: str
    """Of the driver's machine, or what `--hardware` says of all."""
    started_at: str
    """UTC, ISO 8601."""
    duration_s: float
    server: Server
    workload: dict[str, Any]
    """`kind`, `content` and the load's flags."""
    ceiling: CeilingResult | None
    arms: tuple[ArmResult, ...]
    steps: tuple[StepResult, ...] = ()
    """Of a rate sweep; empty without one."""
    claims: tuple[Claim, ...] = ()
    savings: Savings | None = None
    answers_compared: int = 0
    """Requests whose answers several arms gave."""
    answers_different: int = 0
    """Of those, how many were not the same in every arm (greedy answers should be)."""
    driver: DriverCost | None = None
    warnings: tuple[str, ...] = ()
    """What a reader must know before believing the numbers."""
    is_cut_short: bool = False
    """Whether the run ended before its load did (interrupted, server gone)."""
    families: dict[int, int] = field(default_factory=dict)
    """Of conversations that begin with another's turns: the first of those that share them."""
    segments: tuple[SegmentResult, ...] = ()
    failures: tuple[Failure, ...] = ()
    samples: tuple[Sample, ...] = field(default=())
