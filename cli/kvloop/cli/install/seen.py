"""What `kvloop status` sees of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvloop.cli.install.kubernetes_api import (
    BENCHMARK,
    KINDS,
    Cluster,
    Kind,
    Resource,
    operator_labels,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """The operator's Deployment."""

    name: str
    image: str
    replicas: int
    ready: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look."""

    release: Mapping[str, Any]
    operator: Operator | None
    """None: there is no Deployment of it."""
    resources: Mapping[Kind, list[Resource] | None]
    """None: the definition is not installed."""

    @property
    def is_ready(self) -> bool:
        """The release is deployed, the operator serves, and so do all caches and clusters."""
        operator = self.operator
        return (
            self.release["status"] == "deployed"
            and operator is not None
            and operator.ready >= 1
            and all(found is not None for found in self.resources.values())
            and all(
                condition(one, "Ready").get("status") == "True"
                for kind, found in self.resources.items()
                if kind is not BENCHMARK
                for one in found or []
            )
        )


def condition(resource: Resource, kind: str) -> Mapping[str, Any]:
    """One of its conditions; empty where the operator has not told it of the spec as it is now."""
    conditions = (resource.get("status") or {}).get("conditions") or []
    generation = resource["metadata"].get("generation", 0)
    found = (one for one in conditions if one.get("type") == kind)
    return next((one for one in found if one.get("observedGeneration", 0) >= generation), {})


def look(cluster: Cluster, release: Mapping[str, Any], values: Mapping[str, Any]) -> Seen:
    """The operator of the release, and the resources of the namespaces that it watches."""
    namespaces = (values.get("operator") or {}).get("namespaces") or []
    found = cluster.deployments(release["namespace"], operator_labels(release["name"]))
    return Seen(
        release=release,
        operator=_operator(found[0]) if found else None,
        resources={kind: cluster.resources(kind, namespaces) for kind in KINDS},
    )


def _operator(deployment: Any) -> Operator:
    return Operator(
        name=deployment.metadata.name,
        image=deployment.spec.template.spec.containers[0].image,
        replicas=deployment.spec.replicas or 0,
        ready=deployment.status.ready_replicas or 0,
    )
