"""Single requests of made-up runs, and the report that they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kvloop.benchmark.arms import ARMS, Arm, Segment
from kvloop.benchmark.driver.driven import Driven
from kvloop.benchmark.results.build import About, build_report
from kvloop.benchmark.results.document import DriverCost, Report, SegmentResult
from kvloop.benchmark.results.run_data import RunData
from kvloop.benchmark.sample import Failure, Sample
from kvloop.benchmark.workloads.plan import Branch, Ceiling, Content, Conversation, Said, Turn

ABOUT = About(
    title="a load",
    command="kvloop bench",
    version="0",
    hardware="none",
    server_url="http://127.0.0.1:1",
    model="m",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A workload that nobody sends."""

    conversations: Sequence[Conversation]
    ceiling: Ceiling | None = None
    content: Content = "token-ids"
    kind: str = "multi-turn"

    def say(self, conversation: int, turn: int) -> Said:
        return Said(ids=(conversation, turn))

    def describe(self) -> dict[str, Any]:
        return {"seed": 7}


def conversations(num: int, turns: int = 2, at_s: float | None = None) -> list[Conversation]:
    turn = Turn(output_length=3, at_s=at_s)
    return [Conversation(turns=(turn,) * turns) for _ in range(num)]


def branch_of(parent: int, turns: int = 1) -> Conversation:
    return Conversation(turns=(Turn(output_length=3),), branch=Branch(parent=parent, turns=turns))


def sample(arm: Arm = "on", conversation: int = 0, turn: int = 1, **changes: Any) -> Sample:
    fields: dict[str, Any] = {
        "sent_at": 0.0,
        "ended_at": 1.0,
        "queued_s": 0.0,
        "ttft_s": 0.5,
        "itl_s": (0.25, 0.25),
        "prompt_tokens": 100,
        "completion_tokens": 3,
        "reusable_tokens": 0,
        "cached_tokens": 0,
        "sources": None,
        "fallback": None,
        **changes,
    }
    return Sample(arm=arm, conversation=conversation, turn=turn, **fields)


def failure(arm: Arm = "on", conversation: int = 0, turn: int = 1, **changes: Any) -> Failure:
    fields: dict[str, Any] = {"kind": "http_503", "message": "no node is ready", **changes}
    return Failure(arm=arm, conversation=conversation, turn=turn, **fields)


@dataclass(slots=True, kw_only=True)
class MadeRun:
    """Each arm holds every conversation in each planned round; ten seconds a segment."""

    samples: Sequence[Sample] = ()
    failures: Sequence[Failure] = ()
    load: Load = field(default_factory=lambda: Load(conversations=conversations(1)))
    rounds: int = 1
    rates: Sequence[float | None] = (None,)
    is_cut_short: bool = False
    is_bottleneck: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def plan(self) -> list[Segment]:
        seen = {item.arm for item in (*self.samples, *self.failures)}
        every = tuple(range(len(self.load.conversations)))
        return [
            Segment(
                arm=arm,
                step=step,
                round=number,
                # of the rounds: whatever their samples say, each conversation is planned once
                conversations=every[number :: self.rounds],
                salt="s",
                rate=rate,
            )
            for step, rate in enumerate(self.rates)
            for number in range(self.rounds)
            for arm in ARMS
            if arm in seen
        ]

    @property
    def driven(self) -> Driven:
        segments = [
            SegmentResult(
                arm=s.arm,
                step=s.step,
                round=s.round,
                rate=s.rate,
                began_at=10.0 * number,
                ended_at=10.0 * number + 10,
            )
            for number, s in enumerate(self.plan)
        ]
        return Driven(
            started_at="2026-01-01T00:00:00+00:00",
            duration_s=10.0 * len(segments),
            server_name="kvloop",
            samples=tuple(self.samples),
            failures=tuple(self.failures),
            segments=tuple(segments),
            cost=DriverCost(
                lag_ms=None,
                cpu_share=0.1,
                most_streams=1,
                is_bottleneck=self.is_bottleneck,
                words="The driver was too slow" if self.is_bottleneck else "It kept up",
            ),
            is_cut_short=self.is_cut_short,
            warnings=self.warnings,
        )

    @property
    def data(self) -> RunData:
        return RunData(workload=self.load, plan=self.plan, driven=self.driven)

    def report(self, **more: Any) -> Report:
        return build_report(
            about=ABOUT, workload=self.load, plan=self.plan, driven=self.driven, **more
        )
