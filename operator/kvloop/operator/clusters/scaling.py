"""Autoscaling of PDClusters: from the load of now to the Deployments' replicas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from kvloop.operator.autoscale.load import ROLES, Loads
from kvloop.operator.autoscale.plan import Plan, plan_scale
from kvloop.operator.autoscale.watch import LoadWatch
from kvloop.operator.clusters.replicas import with_live
from kvloop.operator.clusters.seen import Seen
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.errors import NodeError
from kvloop.operator.names import SCALED
from kvloop.operator.nodes.client import NodeClient
from kvloop.operator.types.cluster_status import AutoscalingStatus
from kvloop.operator.types.pd_cluster import Autoscaling


class Scaling:
    """Of all clusters. What it holds are the counts of the last minute; what must outlive the
    operator is in the status."""

    def __init__(self) -> None:
        self._watches: dict[str, LoadWatch] = {}

    async def plan(
        self,
        key: str,
        client: NodeClient,
        routers: Sequence[str],
        autoscaling: Autoscaling | None,
        seen: Seen,
        status: Mapping[str, Any],
        now: float,
    ) -> Plan | None:
        """What is wanted of the roles; None where nothing is scaled, or not yet."""
        if autoscaling is None or any(role not in seen.deployments for role in ROLES):
            self._watches.pop(key, None)
            return None
        watch = self._watches.setdefault(key, LoadWatch())
        try:
            loads = await watch.look(client, routers, now)
        except NodeError:
            loads = Loads()
        current = {role: seen.wanted(role) for role in ROLES}
        return plan_scale(loads, autoscaling, current, _remembered(status), now)


def scaled_deployments(plan: Plan, manifests: Sequence[Manifest], seen: Seen) -> Iterator[Manifest]:
    """Those whose replicas change, each with the word on who did it and why."""
    for role, replicas in plan.replicas.items():
        live = seen.deployments[role]
        if replicas == seen.wanted(role):
            continue
        name = live["metadata"]["name"]
        for manifest in manifests:
            if (manifest["kind"], manifest["metadata"]["name"]) == ("Deployment", name):
                wanted = with_live(manifest, live, scaled=replicas)
                reason = getattr(plan.status, role).reason
                wanted["metadata"]["annotations"][SCALED] = f"{replicas} by autoscaling: {reason}"
                yield wanted


def _remembered(status: Mapping[str, Any]) -> AutoscalingStatus:
    """Of a status that another version wrote otherwise: nothing."""
    try:
        return AutoscalingStatus.model_validate(status.get("autoscaling") or {})
    except ValidationError:
        return AutoscalingStatus()
