"""Progressing: whether pods are being replaced, and why: pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvloop.operator.clusters.seen import Seen
from kvloop.operator.clusters.verdict import Verdict, no
from kvloop.operator.names import REASON
from kvloop.operator.types.pd_cluster import ROLES, RoleName


def judge_progress(seen: Seen) -> Verdict:
    """False, Complete where every pod is as it is wanted now."""
    stuck = [_words(seen, role) for role in ROLES if _is_stuck(seen.deployments.get(role, {}))]
    if stuck:
        return no("Stuck", f"{'; '.join(stuck)}: no further within rollout.timeoutSeconds")
    moving = [role for role in ROLES if is_moving(seen, role)]
    if not moving:
        return no("Complete", "every pod is of the newest template")
    counts = "; ".join(_words(seen, role) for role in moving)
    replaced = [role for role in moving if _has_old(seen.deployments.get(role, {}))]
    if not replaced:
        return Verdict(status="True", reason="Scaling", message=counts)
    reasons = [_reason(seen.deployments.get(role, {})) for role in replaced]
    why = "; ".join(dict.fromkeys(reason for reason in reasons if reason))
    if not why:
        return Verdict(status="True", reason="RollingOut", message=counts)
    words = f"changed, and cannot be changed in running pods: {why}; {counts}"
    return Verdict(status="True", reason="RolloutRequired", message=words)


def is_moving(seen: Seen, role: RoleName) -> bool:
    """Pods of an older template are there, or newer ones are not yet."""
    live = seen.deployments.get(role)
    if live is None:
        return True
    status, generation = live.get("status") or {}, live["metadata"].get("generation", 0)
    if status.get("observedGeneration", 0) < generation:
        return True
    return bool(
        status.get("updatedReplicas", 0) < seen.wanted(role)
        or status.get("replicas", 0) > status.get("updatedReplicas", 0)
    )


def updated(live: Mapping[str, Any]) -> int:
    """Pods of the newest template."""
    return int((live.get("status") or {}).get("updatedReplicas", 0))


def _has_old(live: Mapping[str, Any]) -> bool:
    return bool((live.get("status") or {}).get("replicas", 0) > updated(live))


def _is_stuck(live: Mapping[str, Any]) -> bool:
    conditions = (live.get("status") or {}).get("conditions") or ()
    return any(
        one.get("type") == "Progressing" and one.get("reason") == "ProgressDeadlineExceeded"
        for one in conditions
    )


def _reason(live: Mapping[str, Any]) -> str:
    return str((live.get("metadata", {}).get("annotations") or {}).get(REASON, ""))


def _words(seen: Seen, role: RoleName) -> str:
    live = seen.deployments.get(role, {})
    return f"{role}: {updated(live)} of {seen.wanted(role)} pods are new"
