"""What the API server has of a PDCluster, and the gates of its pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from kvloop.operator.clusters.seen import Seen, gated
from kvloop.operator.controllers.base import Api, Manifest, ObjectId
from kvloop.operator.names import PAIRED_GATE, REVISION
from kvloop.operator.rollout import NodeRoleName, Wanted, plan_gates
from kvloop.operator.types.pd_cluster import ROLES, PDCluster, RoleName

NODE_ROLES: Sequence[NodeRoleName] = ("prefill", "decode")


def object_of(cluster: PDCluster, api_version: str, kind: str, name: str) -> ObjectId:
    """Of an object beside it."""
    namespace = cluster.metadata.namespace
    return ObjectId(api_version=api_version, kind=kind, namespace=namespace, name=name)


async def read_deployments(cluster: PDCluster, api: Api) -> Mapping[RoleName, Manifest]:
    """Those that are there."""
    found: dict[RoleName, Manifest] = {}
    for role in ROLES:
        name = f"{cluster.metadata.name}-{role}"
        live = await api.get(object_of(cluster, "apps/v1", "Deployment", name))
        if live is not None:
            found[role] = live
    return found


async def see(cluster: PDCluster, api: Api) -> Seen:
    """Deployments first: pods that come meanwhile are none too many."""
    deployments = await read_deployments(cluster, api)
    labels = {"kvloop.dev/pdc": cluster.metadata.name}
    pods = await api.list("v1", "Pod", cluster.metadata.namespace, labels)
    return Seen(deployments=deployments, pods=pods)


async def open_gates(cluster: PDCluster, seen: Seen, api: Api, now: datetime) -> int:
    """Let pods count as ready whose time has come; how many these were."""
    if any(role not in seen.deployments for role in NODE_ROLES):
        return 0
    opened = plan_gates(gated(seen), _wanted(cluster, seen))
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    for name in sorted(opened):
        condition = {"type": PAIRED_GATE, "status": "True", "lastTransitionTime": time}
        await api.patch_status(object_of(cluster, "v1", "Pod", name), {"conditions": [condition]})
    return len(opened)


def _wanted(cluster: PDCluster, seen: Seen) -> Wanted:
    template = seen.deployments["prefill"]["spec"]["template"]["metadata"]
    return Wanted(
        generation=template["labels"].get(REVISION, ""),
        replicas={role: seen.wanted(role) for role in NODE_ROLES},
        max_unavailable=cluster.spec.rollout.max_unavailable,
    )
