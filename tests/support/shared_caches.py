"""SharedCaches for tests, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvloop.operator.build.shared_cache import build_shared_cache
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.names import COMPONENT
from kvloop.operator.parse import parse_shared_cache
from kvloop.operator.settings import Settings
from kvloop.operator.types.shared_cache import SharedCache

SETTINGS = Settings(node_image="kvloop-node:1")
OLD = Settings(node_image="kvloop-node:1", kubernetes=(1, 20))


def cache_manifest(backend: str, name: str = "mc", generation: int = 1, **part: Any) -> Manifest:
    """A SharedCache of that backend."""
    return {
        "apiVersion": "kvloop.dev/v1alpha1",
        "kind": "SharedCache",
        "metadata": {"name": name, "namespace": "ns", "uid": f"{name}-u", "generation": generation},
        "spec": {"backend": backend, backend: part},
    }


def cache(backend: str, name: str = "mc", **part: Any) -> SharedCache:
    """The same, parsed."""
    return parse_shared_cache(cache_manifest(backend, name, **part))


def built(wanted: SharedCache, settings: Settings = SETTINGS) -> dict[str, Manifest]:
    """The manifests by `Kind/name`."""
    manifests = build_shared_cache(wanted, settings)
    return {f"{m['kind']}/{m['metadata']['name']}": m for m in manifests}


def container_of(manifest: Manifest) -> dict[str, Any]:
    """The one container of a workload."""
    spec = manifest["spec"]
    template = (
        spec["jobTemplate"]["spec"]["template"] if "jobTemplate" in spec else spec["template"]
    )
    (container,) = template["spec"]["containers"]
    found: dict[str, Any] = container
    return found


def flags_of(manifest: Manifest) -> Sequence[str]:
    """Of its command."""
    command: list[str] = container_of(manifest)["command"]
    return command


def pod(name: str, component: str, *, ready: bool = True, **more: Any) -> Manifest:
    """As the API has it; `more` are fields of its status."""
    labels = {COMPONENT: component, "kvloop.dev/shc": "mc"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "ns", "labels": labels},
        "spec": {"nodeName": "machine-1"},
        "status": {
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            **more,
        },
    }
