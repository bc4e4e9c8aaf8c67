"""What all pods of the operator have in common: security, scheduling, their user's overrides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvloop.operator.types.pods import Image, PodOverrides, Rdma, Resources, Scheduling, Volume

USER = 65532
"""Of the images; nobody's on the nodes."""
_NAMED = ("containers", "initContainers", "volumes", "env", "volumeMounts", "ports")
"""Lists whose items are merged by name; of mounts, by path."""


def pod_security(**more: Any) -> dict[str, Any]:
    """A pod's part of the restricted level; volumes belong to the images' group."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
        **more,
    }


def container_security(*, ipc_lock: bool = False) -> dict[str, Any]:
    """A container's part of the restricted level; IPC_LOCK only where it was asked for."""
    capabilities: dict[str, Any] = {"drop": ["ALL"]}
    if ipc_lock:
        capabilities["add"] = ["IPC_LOCK"]
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": capabilities,
    }


def scheduling(settings: Scheduling) -> dict[str, Any]:
    """Where the pod goes: the fields that are set."""
    wanted = {
        "nodeSelector": settings.node_selector,
        "tolerations": settings.tolerations,
        "affinity": settings.affinity,
        "priorityClassName": settings.priority_class_name,
    }
    return {name: value for name, value in wanted.items() if value}


def pull_secrets(image: Image) -> dict[str, Any]:
    """Secrets that open the registry, if any."""
    if not image.pull_secrets:
        return {}
    return {"imagePullSecrets": [{"name": secret.name} for secret in image.pull_secrets]}


def resources(wanted: Resources, devices: Mapping[str, str | int] | None = None) -> dict[str, Any]:
    """Of a container; `devices` are extended resources, whose requests equal their limits."""
    extended = {name: str(count) for name, count in (devices or {}).items()}
    both = {
        "requests": {**wanted.requests, **extended},
        "limits": {**wanted.limits, **extended},
    }
    return {name: value for name, value in both.items() if value}


def rdma_devices(rdma: Rdma | None) -> dict[str, int]:
    """The extended resource that was asked for, if any."""
    return {rdma.resource_name: rdma.count} if rdma is not None and rdma.resource_name else {}


def volume_source(volume: Volume, *, read_only: bool = False) -> dict[str, Any]:
    """A claim or a path of the node."""
    if volume.persistent_volume_claim is not None:
        claim = {"claimName": volume.persistent_volume_claim, "readOnly": read_only}
        return {"persistentVolumeClaim": claim}
    return {"hostPath": {"path": volume.host_path}}


def overlaid(template: Mapping[str, Any], overrides: PodOverrides) -> dict[str, Any]:
    """A pod template with its user's words laid over it, theirs last."""
    over = {"metadata": overrides.metadata, "spec": overrides.spec}
    return _merged(template, {name: value for name, value in over.items() if value})


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Objects field by field, named lists item by item, anything else replaced; null removes."""
    merged = dict(under)
    for name, value in over.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping) and isinstance(under.get(name), Mapping):
            merged[name] = _merged(under[name], value)
        elif name in _NAMED and isinstance(value, list) and isinstance(under.get(name), list):
            merged[name] = _merged_list(under[name], value)
        else:
            merged[name] = value
    return merged


def _merged_list(under: list[Any], over: list[Any]) -> list[Any]:
    items = {_item_name(item): item for item in under}
    for item in over:
        name = _item_name(item)
        items[name] = _merged(items[name], item) if name in items else item
    return list(items.values())


def _item_name(item: Any) -> str:
    for field in ("mountPath", "name", "containerPort"):
        if field in item:
            return str(item[field])
    return repr(item)
