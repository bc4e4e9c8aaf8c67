"""TransferVerified, WriteBackVerified, ReuseVerified from the routers' canaries: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from kvloop.operator.clusters.verdict import Verdict, no, unknown
from kvloop.operator.nodes.answers import CanaryReport, LastCanary, Stage, StageName
from kvloop.operator.types.cluster_status import LoopStatus
from kvloop.operator.types.pd_cluster import Canary

CONDITIONS: Mapping[StageName, str] = {
    "transfer": "TransferVerified",
    "write_back": "WriteBackVerified",
    "reuse": "ReuseVerified",
}
_CACHED: tuple[StageName, ...] = ("write_back", "reuse")
"""Stages that go by way of the shared cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopSeen:
    """What routers know of the loop."""

    canaries: Sequence[LastCanary] = ()
    faults: Sequence[str] = ()
    """Of routers that could not be asked."""
    changed_at: float = 0.0
    """Unix seconds of the last change of nodes or of what they attach: what was found before says
    nothing of now."""
    nodes: frozenset[str] | None = None
    """URLs of the nodes that are there, and stay; None: not known."""
    is_changing: str = ""
    """What is under way; empty: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """What is told, and whether a canary is wanted now."""

    verdicts: Mapping[StageName, Verdict]
    status: LoopStatus = field(default_factory=LoopStatus)
    wants_canary: bool = False


def judge_loop(seen: LoopSeen, canary: Canary, *, has_cache: bool, now: float) -> Loop:
    """By the newest report of all routers."""
    if not canary.enabled:
        return Loop(verdicts=_all(unknown("NotObserved", "spec.canary.enabled is false")))
    reports = [one.last for one in seen.canaries if one.last is not None]
    newest = max(reports, key=lambda report: report.started_at, default=None)
    if newest is None:
        return Loop(verdicts=_cached(_all(_not_seen(seen)), has_cache), wants_canary=True)
    stale = _why_stale(newest, seen, canary, now)
    verdicts = (
        _all(unknown("Stale", stale))
        if stale
        else {name: _verdict(newest.stage(name)) for name in CONDITIONS}
    )
    is_running = any(one.running for one in seen.canaries)
    return Loop(
        verdicts=_cached(verdicts, has_cache),
        status=_status(newest),
        wants_canary=bool(stale) and not seen.is_changing and not is_running,
    )


def _why_stale(report: CanaryReport, seen: LoopSeen, canary: Canary, now: float) -> str:
    """Empty where the report is of what runs now."""
    if seen.is_changing:
        return f"{seen.is_changing}; what the last canary found was before that"
    # Pods' times are whole seconds.
    if report.started_at < seen.changed_at:
        return "nodes or their cache have changed since the last canary; the next one tells"
    if seen.nodes is not None and (gone := _asked_nodes(report) - seen.nodes):
        return f"the last canary was also of nodes that are gone: {', '.join(sorted(gone))}"
    oldest = 3 * canary.interval_seconds + 2 * canary.timeout_seconds
    if now - report.started_at > oldest:
        return f"the last canary was {now - report.started_at:.0f} s ago"
    return ""


def _asked_nodes(report: CanaryReport) -> frozenset[str]:
    named = (url for pair in report.pairs for url in (pair.decode, pair.prefill, pair.reader))
    return frozenset(url for url in named if url)


def _verdict(stage: Stage) -> Verdict:
    if stage.state == "ok":
        return Verdict(status="True", reason="Verified", message=f"in {stage.seconds:.1f} s")
    if stage.state == "failed":
        return no("CanaryFailed", stage.reason)
    if stage.state == "skipped":
        return unknown("NotObserved", stage.reason or "an earlier stage left nothing to judge")
    return unknown("NotObserved" if stage.is_observable else "NotObservable", stage.reason)


def _not_seen(seen: LoopSeen) -> Verdict:
    if seen.faults:
        return unknown("RouterNotReached", "; ".join(seen.faults))
    return unknown("NotObserved", "no canary has run yet")


def _cached(verdicts: Mapping[StageName, Verdict], has_cache: bool) -> Mapping[StageName, Verdict]:
    """Without a shared cache that part of the loop is open by the user's own will."""
    if has_cache:
        return verdicts
    open_ = no("NoSharedCache", "spec.sharedCacheRef is unset: nothing is shared between nodes")
    return {name: open_ if name in _CACHED else one for name, one in verdicts.items()}


def _status(report: CanaryReport) -> LoopStatus:
    reason = report.stage(report.broken_stage).reason if report.broken_stage is not None else ""
    at = datetime.fromtimestamp(report.started_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return LoopStatus(
        result=report.result, broken_stage=report.broken_stage or "", at=at, reason=reason
    )


def _all(verdict: Verdict) -> Mapping[StageName, Verdict]:
    return dict.fromkeys(CONDITIONS, verdict)
