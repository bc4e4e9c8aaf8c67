"""From what a run left behind to the report. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvloop.benchmark.arms import Segment
from kvloop.benchmark.driver.driven import Driven
from kvloop.benchmark.node_seconds import SegmentSeconds
from kvloop.benchmark.results.answers import compare_answers
from kvloop.benchmark.results.cautions import cautions
from kvloop.benchmark.results.claims import claims
from kvloop.benchmark.results.document import CeilingResult, Report, Server
from kvloop.benchmark.results.goodput import Objectives
from kvloop.benchmark.results.run_data import RunData
from kvloop.benchmark.results.savings import savings
from kvloop.benchmark.results.summary import arm_result, step_results
from kvloop.benchmark.schedule import families
from kvloop.benchmark.workloads.plan import Ceiling, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a report says of itself."""

    title: str
    command: str
    """As typed, secrets left out."""
    version: str
    hardware: str
    server_url: str
    model: str


def build_report(
    *,
    about: About,
    workload: Workload,
    plan: Sequence[Segment],
    driven: Driven,
    objectives: Objectives | None = None,
    node_seconds: Sequence[SegmentSeconds] = (),
    price_per_gpu_hour: float | None = None,
    more_warnings: Sequence[str] = (),
    driving: Mapping[str, Any] | None = None,
) -> Report:
    """`plan`: the segments that were to be driven; `node_seconds`: `NodeSeconds.spent`, if any;
    `driving`: how, beside the load's own flags (clients, rates): two runs differ by it, too.

    Pure, and never fails on what a server did: a run without one answer gives a report, too.
    """
    run = RunData(workload=workload, plan=plan, driven=driven)
    wanted = objectives or Objectives()
    arms = tuple(arm_result(run, arm, wanted) for arm in run.arms)
    found = claims(run)
    compared, different = compare_answers(driven.samples)
    return Report(
        title=about.title,
        command=about.command,
        version=about.version,
        hardware=about.hardware,
        started_at=driven.started_at,
        duration_s=driven.duration_s,
        server=Server(url=about.server_url, model=about.model, name=driven.server_name),
        workload={**(driving or {}), **_described(workload)},
        ceiling=_ceiling(workload.ceiling),
        arms=arms,
        steps=step_results(run, wanted),
        claims=found,
        savings=savings(run, node_seconds, price_per_gpu_hour),
        answers_compared=compared,
        answers_different=different,
        driver=driven.cost,
        warnings=tuple(dict.fromkeys((*cautions(run, arms, found), *more_warnings))),
        is_cut_short=driven.is_cut_short,
        families=_families(workload),
        segments=driven.segments,
        failures=driven.failures,
        samples=driven.samples,
    )


def _described(workload: Workload) -> dict[str, Any]:
    return {
        "kind": workload.kind,
        "content": workload.content,
        "conversations": len(workload.conversations),
        **workload.describe(),
    }


def _families(workload: Workload) -> dict[int, int]:
    each = families(workload.conversations)
    return {member: family[0] for family in each for member in family[1:]}


def _ceiling(ceiling: Ceiling | None) -> CeilingResult | None:
    if ceiling is None:
        return None
    return CeilingResult(
        tokens=ceiling.tokens,
        reusable_tokens=ceiling.reusable_tokens,
        rate=ceiling.rate,
        words=ceiling.words,
    )
