"""What one look saw of a PDCluster's Deployments and pods: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kvloop.operator.names import COMPONENT, NODE_PORT, PAIRED_GATE, REVISION, ROUTER_PORT
from kvloop.operator.pod_trouble import is_ready
from kvloop.operator.rollout import GatedPod
from kvloop.operator.types.pd_cluster import ROLES, RoleName

Pod = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """By role; a Deployment that is not there yet is missing."""

    deployments: Mapping[RoleName, Mapping[str, Any]]
    pods: Sequence[Pod]
    """All of the cluster, those on their way out too."""

    def staying(self, role: RoleName) -> list[Pod]:
        """Pods of the role that nobody has deleted."""
        return [pod for pod in self.pods if role_of(pod) == role and not is_leaving(pod)]

    def wanted(self, role: RoleName) -> int:
        """Replicas that its Deployment was told."""
        return int(self.deployments.get(role, {}).get("spec", {}).get("replicas", 0))

    def ready(self, role: RoleName) -> int:
        return sum(is_ready(pod) for pod in self.staying(role))


def role_of(pod: Pod) -> RoleName | None:
    """None of what is no node or router."""
    found = (pod["metadata"].get("labels") or {}).get(COMPONENT)
    return next((role for role in ROLES if role == found), None)


def is_leaving(pod: Pod) -> bool:
    return bool(pod["metadata"].get("deletionTimestamp"))


def runs(pod: Pod) -> bool:
    """Its containers are ready, whatever its gates say."""
    return pod_condition(pod, "ContainersReady").get("status") == "True"


def url_of(pod: Pod) -> str | None:
    """None while it has no address."""
    address = pod.get("status", {}).get("podIP")
    if not address:
        return None
    port = ROUTER_PORT if role_of(pod) == "router" else NODE_PORT
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def gated(seen: Seen) -> list[GatedPod]:
    """Prefill and decode pods as `rollout` knows them."""
    return [
        GatedPod(
            name=pod["metadata"]["name"],
            role=role,
            generation=pod["metadata"]["labels"].get(REVISION, ""),
            runs=runs(pod),
            is_open=pod_condition(pod, PAIRED_GATE).get("status") == "True",
        )
        for role in ("prefill", "decode")
        for pod in seen.staying(role)
    ]


def pod_condition(pod: Pod, name: str) -> Mapping[str, Any]:
    """Empty where it has none of that type."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return next((one for one in conditions if one.get("type") == name), {})


def changed_at(pods: Sequence[Pod]) -> float:
    """Unix seconds of the last time that one of them came, or became or ceased to be ready."""
    times = [0.0]
    for pod in pods:
        times.append(seconds(pod["metadata"].get("creationTimestamp")))
        times.append(seconds(pod_condition(pod, "Ready").get("lastTransitionTime")))
    return max(times)


def seconds(text: str | None) -> float:
    """Unix seconds of a time as the API has it; 0 of none."""
    if not text:
        return 0.0
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
