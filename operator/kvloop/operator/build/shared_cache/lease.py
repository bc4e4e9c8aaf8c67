"""What masters need to elect a leader by a Lease: the Lease, and the rights to it."""

from __future__ import annotations

from kvloop.operator.build.shared_cache import frame
from kvloop.operator.build.shared_cache.masters import COMPONENT
from kvloop.operator.connect.mooncake import master_service
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.types.shared_cache import SharedCache

_RBAC = "rbac.authorization.k8s.io"


def build_lease(cache: SharedCache) -> list[Manifest]:
    """The masters write the Lease's spec, which nothing here touches; it goes with the cache."""
    assert cache.spec.mooncake is not None
    name = master_service(cache)
    meta = frame.metadata(cache, name, COMPONENT)
    pods = [f"{name}-{i}" for i in range(cache.spec.mooncake.masters.replicas)]
    rules = [
        _rule("coordination.k8s.io", "leases", [name], ["get", "update"]),
        _rule("", "pods", pods, ["patch"]),
    ]
    account = {"kind": "ServiceAccount", "name": name, "namespace": cache.metadata.namespace}
    return [
        {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": meta, "rules": rules},
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
            "subjects": [account],
        },
    ]


def _rule(group: str, resource: str, resource_names: list[str], verbs: list[str]) -> Manifest:
    return {
        "apiGroups": [group],
        "resources": [resource],
        "resourceNames": resource_names,
        "verbs": verbs,
    }
