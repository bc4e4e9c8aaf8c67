"""What a report measured in one arm at one rate, by conversation."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.results.document import ArmResult, Goodput, Report, StepResult
from kvloop.benchmark.sample import Sample

Key: TypeAlias = tuple[Arm, float | None, int]
"""Arm, rate, and how many of the same were before it: two sweeps may have a rate at other steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """The requests of one arm, or of one of its steps in a rate sweep."""

    arm: Arm
    step: int
    rate: float | None
    planned: int
    seconds: float
    """In which it loaded the server."""
    goodput: Goodput | None
    samples: dict[int, list[Sample]] = field(default_factory=dict)
    """By conversation with its branches, in the order of their turns."""
    failures: dict[int, int] = field(default_factory=dict)
    """How many, likewise."""

    @property
    def name(self) -> str:
        """As `Row.place`."""
        return self.arm if self.rate is None else f"{self.arm} at {self.rate:g}/s"

    @property
    def conversations(self) -> list[int]:
        """All that were begun."""
        return sorted(self.samples.keys() | self.failures.keys())

    @property
    def num_sent(self) -> int:
        """Requests that were answered or failed."""
        return sum(map(len, self.samples.values())) + sum(self.failures.values())

    def turns(self, conversation: int) -> list[tuple[int, int]]:
        """Those that were answered, its branches' too: conversation and turn."""
        return [(one.conversation, one.turn) for one in self.samples.get(conversation, ())]


def tracks(report: Report) -> dict[Key, Track]:
    """By arm and rate; the order is the report's."""
    found: dict[Key, Track] = {}
    for track in _tracks(report):
        before = sum((arm, rate) == (track.arm, track.rate) for arm, rate, _ in found)
        found[track.arm, track.rate, before] = track
    return found


def _tracks(report: Report) -> Iterator[Track]:
    for result in report.steps or report.arms:
        step, rate = (result.step, result.rate) if isinstance(result, StepResult) else (0, None)
        yield Track(
            arm=result.arm,
            step=step,
            rate=rate,
            planned=result.counts.planned,
            seconds=_seconds(report, result, step),
            goodput=result.goodput,
            samples=_samples(report, result.arm, step),
            failures=_failures(report, result.arm, step),
        )


def _seconds(report: Report, result: ArmResult | StepResult, step: int) -> float:
    if isinstance(result, ArmResult):
        return result.seconds
    held = (s for s in report.segments if (s.arm, s.step) == (result.arm, step))
    return math.fsum(segment.ended_at - segment.began_at for segment in held)


def _samples(report: Report, arm: Arm, step: int) -> dict[int, list[Sample]]:
    each: defaultdict[int, list[Sample]] = defaultdict(list)
    for sample in sorted(report.samples, key=lambda s: (s.conversation, s.round, s.turn)):
        if (sample.arm, sample.step) == (arm, step):
            each[report.families.get(sample.conversation, sample.conversation)].append(sample)
    return dict(each)


def _failures(report: Report, arm: Arm, step: int) -> dict[int, int]:
    each: defaultdict[int, int] = defaultdict(int)
    for failure in report.failures:
        if (failure.arm, failure.step) == (arm, step):
            each[report.families.get(failure.conversation, failure.conversation)] += 1
    return dict(each)
