"""What a run left behind, sorted by who asks for it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

from kvloop.benchmark.arms import ARMS, Arm, Segment
from kvloop.benchmark.driver.driven import Driven
from kvloop.benchmark.results.document import Counts, Rates, SegmentResult
from kvloop.benchmark.sample import Failure, Sample
from kvloop.benchmark.schedule import families
from kvloop.benchmark.workloads.plan import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One arm's share of a run, or of one of its steps or rounds."""

    arm: Arm
    samples: tuple[Sample, ...]
    failures: tuple[Failure, ...]
    planned: int
    """Requests."""
    seconds: float
    """In which the arm loaded the server."""

    @property
    def counts(self) -> Counts:
        completed, failed = len(self.samples), len(self.failures)
        return Counts(
            planned=self.planned,
            completed=completed,
            failed=failed,
            not_sent=self.planned - completed - failed,
            short_answers=sum(sample.is_short for sample in self.samples),
        )

    @property
    def rates(self) -> Rates:
        return Rates(
            requests_per_s=self._per_s(len(self.samples)),
            output_tokens_per_s=self._per_s(sum(s.completion_tokens for s in self.samples)),
            prompt_tokens_per_s=self._per_s(sum(s.prompt_tokens for s in self.samples)),
        )

    def _per_s(self, count: int) -> float:
        return count / self.seconds if self.seconds > 0 else 0.0


class RunData:
    """A load, how it was planned, and what it showed."""

    def __init__(self, *, workload: Workload, plan: Sequence[Segment], driven: Driven) -> None:
        self.workload, self.plan, self.driven = workload, tuple(plan), driven
        planned = {segment.arm for segment in plan}
        self.arms = tuple(arm for arm in ARMS if arm in planned)
        """Those planned, in their usual order."""
        self.steps = tuple(sorted({segment.step for segment in plan}))
        self.rounds = tuple(sorted({segment.round for segment in plan}))
        self.is_open = any(segment.rate is not None for segment in plan)
        """Whether requests were offered at a rate."""
        self.units = _units(workload)
        """Each conversation's family: what is drawn again as one."""
        self._stretches = {_place(segment): _Stretch() for segment in plan}
        self._fill()

    def part(self, arm: Arm, step: int | None = None, round_: int | None = None) -> Part:
        """Of all steps, or rounds, where None."""
        chosen = [
            stretch
            for place, stretch in self._stretches.items()
            if place[0] == arm and step in (None, place[1]) and round_ in (None, place[2])
        ]
        return Part(
            arm=arm,
            samples=tuple(chain.from_iterable(s.samples for s in chosen)),
            failures=tuple(chain.from_iterable(s.failures for s in chosen)),
            planned=sum(s.planned for s in chosen),
            seconds=math.fsum(s.seconds for s in chosen),
        )

    def _fill(self) -> None:
        turns = [len(conversation.turns) for conversation in self.workload.conversations]
        for segment in self.plan:
            self._stretches[_place(segment)].planned += sum(turns[n] for n in segment.conversations)
        for ran in self.driven.segments:
            self._stretches[_place(ran)].seconds += ran.ended_at - ran.began_at
        for sample in self.driven.samples:
            self._stretches[_place(sample)].samples.append(sample)
        for failure in self.driven.failures:
            self._stretches[_place(failure)].failures.append(failure)


@dataclass(slots=True)
class _Stretch:
    """What belongs to one segment."""

    samples: list[Sample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    planned: int = 0
    seconds: float = 0.0


def _place(item: Segment | SegmentResult | Sample | Failure) -> tuple[Arm, int, int]:
    return item.arm, item.step, item.round


def _units(workload: Workload) -> dict[int, int]:
    each = families(workload.conversations)
    return {member: unit for unit, family in enumerate(each) for member in family}
