"""Ready: whether all that was asked for serves, and if not, why: pure."""

from __future__ import annotations

from collections.abc import Mapping

from kvloop.operator.attach import AttachOutcome
from kvloop.operator.clusters.inputs import Inputs
from kvloop.operator.clusters.seen import Seen
from kvloop.operator.clusters.verdict import Verdict, no
from kvloop.operator.pod_trouble import worst
from kvloop.operator.types.pd_cluster import ROLES, PDCluster, RoleName


def judge_ready(
    cluster: PDCluster, inputs: Inputs, seen: Seen, attached: AttachOutcome | None
) -> Verdict:
    """What keeps requests from being answered comes first, then what keeps the cache away."""
    if inputs.problem is not None:
        return no(inputs.problem.reason, inputs.problem.message)
    lacking = {role: _lack(seen, role) for role in ROLES}
    if any(lacking.values()):
        return _pods_verdict(seen, {role: text for role, text in lacking.items() if text})
    return _cache_verdict(cluster, inputs, attached) or Verdict(
        status="True", reason="Ready", message=_counts(seen)
    )


def _lack(seen: Seen, role: RoleName) -> str:
    """Of a role with fewer ready pods than wanted; nobody answers without decode and router."""
    wanted, ready = seen.wanted(role), seen.ready(role)
    if role not in seen.deployments:
        return f"{role}: its Deployment is not there yet"
    if wanted == 0 and role != "prefill":
        return f"{role} has no replicas: nobody answers requests"
    return f"{role}: {ready} of {wanted} pods are ready" if ready < wanted else ""


def _pods_verdict(seen: Seen, lacking: Mapping[RoleName, str]) -> Verdict:
    """The gravest trouble of pods of these roles; none: they are only starting."""
    trouble = worst([pod for role in lacking for pod in seen.staying(role)])
    counts = "; ".join(lacking.values())
    if trouble is not None:
        return no(trouble.reason, f"{counts}; {trouble.message}")
    idle = [role for role in lacking if seen.wanted(role) == 0 and role in seen.deployments]
    return no("NoReplicas" if idle else "PodsNotReady", counts)


def _cache_verdict(
    cluster: PDCluster, inputs: Inputs, attached: AttachOutcome | None
) -> Verdict | None:
    reference = cluster.spec.shared_cache_ref
    if reference is None:
        return None
    begin = f"requests are answered, without all of SharedCache {reference.name}: "
    ready = inputs.cache_ready
    if ready is None:
        return no("CacheNotReady", f"{begin}it tells nothing of itself yet")
    if ready.status == "False":
        return no("CacheNotReady", f"{begin}{ready.reason}: {ready.message}")
    if attached is not None and attached.faults:
        words = "; ".join(f"{name}: {fault}" for name, fault in sorted(attached.faults.items()))
        return no("CacheNotReady", f"{begin}{words}")
    if attached is not None and attached.pending:
        words = f"being attached by {', '.join(sorted(attached.pending))}"
        return no("CacheNotReady", f"{begin}{words}")
    return None


def _counts(seen: Seen) -> str:
    return ", ".join(f"{seen.ready(role)} {role}" for role in ROLES) + " ready"
