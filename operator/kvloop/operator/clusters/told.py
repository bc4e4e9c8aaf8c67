"""The status of a PDCluster, and the events of a change: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from kvloop.operator.clusters.loop import CONDITIONS, Loop
from kvloop.operator.clusters.progress import updated
from kvloop.operator.clusters.seen import Seen
from kvloop.operator.clusters.verdict import Verdict
from kvloop.operator.conditions import as_status, condition, with_condition
from kvloop.operator.controllers.base import Event
from kvloop.operator.names import labels, selector
from kvloop.operator.types.base import Condition
from kvloop.operator.types.cluster_status import AutoscalingStatus, PDClusterStatus, RoleStatus
from kvloop.operator.types.pd_cluster import PDCluster, RoleName

_ORDER = ("Ready", "Progressing", *CONDITIONS.values())
_QUIET = ("Stale", "NotObserved", "Scaling", "RouterNotReached")
"""Reasons that come and go by themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All of one look."""

    ready: Verdict
    progress: Verdict
    loop: Loop
    seen: Seen
    release_tag: str = ""
    revision: str = ""
    attached_cache: str = ""
    attached_at: str = ""
    hit_rate: float | None = None
    scaling: AutoscalingStatus | None = None


def status_of(
    cluster: PDCluster, found: Findings, before: Sequence[Condition], now: datetime
) -> PDClusterStatus:
    """Conditions keep the time of their last change."""
    conditions = list(before)
    for name, verdict in verdicts(found).items():
        conditions = with_condition(
            conditions,
            type=name,
            status=verdict.status,
            reason=verdict.reason,
            message=verdict.message,
            generation=cluster.metadata.generation,
            now=now,
        )
    name, namespace = cluster.metadata.name, cluster.metadata.namespace
    return PDClusterStatus(
        observed_generation=cluster.metadata.generation,
        conditions=sorted(conditions, key=_place),
        prefill=_role(cluster, found.seen, "prefill"),
        decode=_role(cluster, found.seen, "decode"),
        router=_role(cluster, found.seen, "router"),
        release_tag=found.release_tag,
        revision=found.revision,
        attached_cache=found.attached_cache,
        attached_at=found.attached_at,
        endpoint=f"http://{name}.{namespace}.svc:{cluster.spec.router.port}",
        hit_rate=None if found.hit_rate is None else round(found.hit_rate, 4),
        hit="" if found.hit_rate is None else f"{100 * found.hit_rate:.0f}%",
        reuse=found.loop.verdicts["reuse"].status,
        loop=found.loop.status,
        autoscaling=found.scaling,
    )


def as_manifest(status: PDClusterStatus) -> dict[str, Any]:
    """For the status of the resource; what is unknown is left out."""
    told = status.model_dump(by_alias=True, exclude_none=True)
    return {**told, "conditions": as_status(status.conditions)}


def verdicts(found: Findings) -> Mapping[str, Verdict]:
    """By condition."""
    loop = {CONDITIONS[name]: verdict for name, verdict in found.loop.verdicts.items()}
    return {"Ready": found.ready, "Progressing": found.progress, **loop}


def events_of(before: Sequence[Condition], after: Sequence[Condition]) -> list[Event]:
    """One for each condition that became another, where it says something."""
    events = []
    for one in after:
        was = condition(before, one.type)
        if was is not None and (was.status, was.reason) == (one.status, one.reason):
            continue
        if one.reason in _QUIET or (was is None and one.status == "Unknown"):
            continue
        events.append(Event(type=_kind(one), reason=one.reason, message=_words(one)))
    return events


def _kind(one: Condition) -> Literal["Normal", "Warning"]:
    is_good = one.status == "True" or one.reason in ("Complete", "PodsNotReady", "NoSharedCache")
    return "Normal" if is_good else "Warning"


def _words(one: Condition) -> str:
    return f"{one.type} is {one.status}: {one.message}".removesuffix(": ")


def _role(cluster: PDCluster, seen: Seen, role: RoleName) -> RoleStatus:
    wanted = labels(kind="pdc", name=cluster.metadata.name, component=role)
    text = ",".join(f"{key}={value}" for key, value in selector(wanted).items())
    return RoleStatus(
        replicas=seen.wanted(role),
        ready=seen.ready(role),
        updated=updated(seen.deployments.get(role, {})),
        selector=text,
    )


def _place(one: Condition) -> int:
    return _ORDER.index(one.type) if one.type in _ORDER else len(_ORDER)
