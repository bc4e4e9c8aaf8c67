"""The same requests under two arms, side by side. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.results.bootstrap import ByUnit
from kvloop.benchmark.results.run_data import RunData
from kvloop.benchmark.sample import Sample

Values = Callable[[Sample], Sequence[float]]
"""What a claim is about: a request's numbers, such as its TTFT or all its gaps."""
_Held = tuple[int, int]
"""A step and a conversation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A family's requests that both arms answered, in one order."""

    arm: list[Sample] = field(default_factory=list)
    control: list[Sample] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An arm and its control over the same requests."""

    arm: Arm
    control: Arm
    units: tuple[Unit, ...]
    num_left_out: int
    """Conversations that failed in either, or whose answered turns are not the same in both."""

    def values(self, of: Values) -> tuple[ByUnit, ByUnit]:
        """The arm's and its control's, by unit; units without any are left out."""
        each = [
            ([v for s in unit.arm for v in of(s)], [v for s in unit.control for v in of(s)])
            for unit in self.units
        ]
        kept = [(ours, theirs) for ours, theirs in each if ours and theirs]
        return [ours for ours, _ in kept], [theirs for _, theirs in kept]


def pair(run: RunData, arm: Arm, control: Arm) -> Pair:
    """Of the conversations that both arms held alike, step by step."""
    ours, theirs = _by_held(run, arm), _by_held(run, control)
    failed = {(f.step, f.conversation) for f in run.driven.failures if f.arm in (arm, control)}
    alike = {
        held
        for held in ours.keys() & theirs.keys()
        if held not in failed and ours[held].keys() == theirs[held].keys()
    }
    units: dict[int, Unit] = {}
    unit_of = run.units
    for held in sorted(alike):
        unit = units.setdefault(unit_of[held[1]], Unit())
        for turn in sorted(ours[held]):
            unit.arm.append(ours[held][turn])
            unit.control.append(theirs[held][turn])
    every = ours.keys() | theirs.keys() | failed
    return Pair(
        arm=arm,
        control=control,
        units=tuple(units[number] for number in sorted(units)),
        num_left_out=len({conversation for _, conversation in every - alike}),
    )


def _by_held(run: RunData, arm: Arm) -> dict[_Held, dict[int, Sample]]:
    held: dict[_Held, dict[int, Sample]] = {}
    for sample in run.driven.samples:
        if sample.arm == arm:
            held.setdefault((sample.step, sample.conversation), {})[sample.turn] = sample
    return held
