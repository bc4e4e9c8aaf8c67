"""What each arm, and each step of a rate sweep, showed. Pure."""

from __future__ import annotations

from collections import Counter

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.results.document import ArmResult, StepResult
from kvloop.benchmark.results.goodput import Objectives, goodput
from kvloop.benchmark.results.run_data import RunData
from kvloop.benchmark.results.stats import by_length, by_turn, summarize


def arm_result(run: RunData, arm: Arm, objectives: Objectives) -> ArmResult:
    """Over all its steps and rounds."""
    part = run.part(arm)
    samples = part.samples
    return ArmResult(
        arm=arm,
        counts=part.counts,
        seconds=part.seconds,
        rates=part.rates,
        errors=dict(Counter(failure.kind for failure in part.failures).most_common()),
        fallbacks=dict(Counter(s.fallback for s in samples if s.fallback).most_common()),
        turns=by_turn(samples),
        lengths=by_length(samples),
        later_turns=summarize([s for s in samples if s.turn > 1]),
        all=summarize(samples),
        goodput=goodput(samples, part.planned, part.seconds, objectives),
    )


def step_results(run: RunData, objectives: Objectives) -> tuple[StepResult, ...]:
    """Each step of each arm; nothing without a rate sweep."""
    rates = {segment.step: segment.rate for segment in run.plan}
    if all(rate is None for rate in rates.values()):
        return ()
    return tuple(
        _step_result(run, arm, step, rate, objectives)
        for step, rate in sorted(rates.items())
        for arm in run.arms
    )


def _step_result(
    run: RunData, arm: Arm, step: int, rate: float | None, objectives: Objectives
) -> StepResult:
    part = run.part(arm, step)
    return StepResult(
        arm=arm,
        step=step,
        rate=rate,
        counts=part.counts,
        rates=part.rates,
        all=summarize(part.samples),
        goodput=goodput(part.samples, part.planned, part.seconds, objectives),
    )
