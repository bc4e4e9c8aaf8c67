"""PDClusters for tests, and what is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvloop.operator.build.pd_cluster import Keys, build_pd_cluster
from kvloop.operator.connection import Connection
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.parse import parse_pd_cluster
from kvloop.operator.settings import Settings
from kvloop.operator.types.pd_cluster import PDCluster

SETTINGS = Settings(node_image="kvloop-node:1")
KEYS = Keys(admin_key="admin", node_secret="secret")


def cluster_manifest(name: str = "demo", namespace: str = "ns", **spec: Any) -> Manifest:
    """A PDCluster of the demo model."""
    return {
        "apiVersion": "kvloop.dev/v1alpha1",
        "kind": "PDCluster",
        "metadata": {"name": name, "namespace": namespace, "uid": "u1", "generation": 1},
        "spec": {"model": {"demo": "smollm2"}, **spec},
    }


def cluster(**spec: Any) -> PDCluster:
    """The same, parsed."""
    return parse_pd_cluster(cluster_manifest(**spec))


def file_connection(name: str) -> Connection:
    """To a file store on a claim."""
    mount = f"/var/lib/kvloop/cache/{name}"
    return Connection(
        cache=name,
        backend="file",
        extra_config={"root": f"{mount}/kvloop"},
        volumes=({"name": f"cache-{name}", "persistentVolumeClaim": {"claimName": name}},),
        mounts=({"name": f"cache-{name}", "mountPath": mount},),
    )


def built(
    wanted: PDCluster, connections: Sequence[Connection] = (), keys: Keys = KEYS
) -> dict[str, Manifest]:
    """The manifests by `Kind/name`."""
    named: Mapping[str, Connection] = {one.cache: one for one in connections}
    manifests = build_pd_cluster(wanted, named, keys, SETTINGS)
    return {f"{m['kind']}/{m['metadata']['name']}": m for m in manifests}


def pod_of(manifests: Mapping[str, Manifest], role: str) -> dict[str, Any]:
    """The pod template of a role."""
    template: dict[str, Any] = manifests[f"Deployment/demo-{role}"]["spec"]["template"]
    return template


def container_of(manifests: Mapping[str, Manifest], role: str) -> dict[str, Any]:
    """Its main container."""
    spec = pod_of(manifests, role)["spec"]
    found: dict[str, Any] = next(c for c in spec["containers"] if c["name"] == role)
    return found


def flag(container: Mapping[str, Any], name: str) -> str | None:
    """The value of a flag; the flag itself where it has none."""
    args = list(container["args"])
    if f"--{name}" not in args:
        return None
    rest = args[args.index(f"--{name}") + 1 :]
    return rest[0] if rest and not rest[0].startswith("--") else f"--{name}"
