"""The kinds of objects that the operator reads or writes, and their places in the API."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from kvloop.operator.types.base import GROUP, VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A namespaced kind."""

    group: str
    """Empty: the core."""
    version: str
    kind: str
    plural: str

    @property
    def api_version(self) -> str:
        """As manifests name it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str, name: str = "", subresource: str = "") -> str:
        """Its URL's path; no namespace: of all."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
        rest = "".join(
            f"/{quote(part, safe='')}" for part in (self.plural, name, subresource) if part
        )
        return f"{root}{place}{rest}"


def _kinds(group: str, version: str, **plurals: str) -> tuple[Kind, ...]:
    return tuple(
        Kind(group=group, version=version, kind=kind, plural=plural)
        for kind, plural in plurals.items()
    )


RESOURCES = _kinds(
    GROUP,
    VERSION,
    SharedCache="sharedcaches",
    PDCluster="pdclusters",
    MultiTurnBenchmark="multiturnbenchmarks",
)
"""What users write."""

KINDS: tuple[Kind, ...] = (
    *RESOURCES,
    *_kinds(
        "",
        "v1",
        Pod="pods",
        Service="services",
        Secret="secrets",
        ConfigMap="configmaps",
        ServiceAccount="serviceaccounts",
        PersistentVolumeClaim="persistentvolumeclaims",
        Event="events",
    ),
    *_kinds(
        "apps",
        "v1",
        Deployment="deployments",
        StatefulSet="statefulsets",
        DaemonSet="daemonsets",
        ReplicaSet="replicasets",
    ),
    *_kinds("batch", "v1", Job="jobs", CronJob="cronjobs"),
    *_kinds("batch", "v1beta1", CronJob="cronjobs"),
    *_kinds("coordination.k8s.io", "v1", Lease="leases"),
    *_kinds("networking.k8s.io", "v1", NetworkPolicy="networkpolicies"),
    *_kinds("policy", "v1", PodDisruptionBudget="poddisruptionbudgets"),
    *_kinds("policy", "v1beta1", PodDisruptionBudget="poddisruptionbudgets"),
    *_kinds("rbac.authorization.k8s.io", "v1", Role="roles", RoleBinding="rolebindings"),
)
_BY_NAME = {(kind.api_version, kind.kind): kind for kind in KINDS}


def kind_of(api_version: str, kind: str) -> Kind:
    """ValueError where the operator knows no such kind."""
    found = _BY_NAME.get((api_version, kind))
    if found is None:
        raise ValueError(f"{api_version} {kind} is none of the kinds in kvloop.operator.kinds")
    return found
