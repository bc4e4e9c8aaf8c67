"""What the connections of several backends are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from kvloop.operator.errors import ConnectError
from kvloop.operator.names import CACHE_DIR
from kvloop.operator.types.pods import Volume
from kvloop.operator.types.shared_cache import Backend

STORE_DIRECTORY = "kvloop"
"""Of the store in its volume, where no field names one."""
_LONGEST_NAME = 63


def volume_name(cache: str) -> str:
    """Of a pod's volume: a DNS label that no other SharedCache's is equal to."""
    name = f"cache-{cache}"
    if "." not in name and len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(cache.encode()).hexdigest()[:8]
    return f"{name.replace('.', '-')[: _LONGEST_NAME - 9].rstrip('-')}-{digest}"


def mount_path(cache: str) -> str:
    """Where its volume is in a container."""
    return f"{CACHE_DIR}/{cache}"


def pod_volume(name: str, volume: Volume) -> dict[str, Any]:
    """Of a pod. A path must be there: what would be made is a root's, and on the wrong disk."""
    if volume.host_path is not None:
        return {"name": name, "hostPath": {"path": volume.host_path, "type": "Directory"}}
    claim = {"claimName": volume.persistent_volume_claim}
    return {"name": name, "persistentVolumeClaim": claim}


def container_mount(name: str, volume: Volume, path: str) -> dict[str, Any]:
    """Of a container; what is mounted on the machine later on becomes visible in it."""
    mount = {"name": name, "mountPath": path}
    if volume.host_path is not None:
        mount["mountPropagation"] = "HostToContainer"
    return mount


def with_extra(
    backend: Backend, ours: Mapping[str, Any], extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The extra config; ConnectError where `extra` sets a field of ours."""
    if twice := sorted(set(ours) & set(extra)):
        raise ConnectError(
            f"{backend}.extraConfig.{twice[0]}",
            "the operator sets this field from the others of the resource: remove it",
        )
    return {**ours, **extra}
