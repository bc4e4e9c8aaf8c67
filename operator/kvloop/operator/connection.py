"""How pods reach a SharedCache: what nodes attach, and what their pods mount for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Of one SharedCache, for prefill, decode and router pods."""

    cache: str
    """The SharedCache's name."""
    backend: str
    """For --hicache-storage-backend."""
    extra_config: Mapping[str, Any]
    """For --hicache-storage-backend-extra-config; `${POD_IP}` in a string is the pod's address."""
    volumes: tuple[Mapping[str, Any], ...] = ()
    """Of the pod; names begin with `cache-NAME`."""
    mounts: tuple[Mapping[str, Any], ...] = ()
    """Of the container."""
    env: tuple[Mapping[str, Any], ...] = ()
    """Of the container, such as MOONCAKE_… or NIXL settings."""
    flags: tuple[str, ...] = ()
    """Of nodes and router, such as --hicache-dynamic-modules."""
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    """Of the pods, for side-cars that others inject."""
    pod_annotations: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, str] = field(default_factory=dict)
    """Extended resources (limits and requests), such as rdma/…."""
    host_network: bool = False
    ipc_lock: bool = False
    secrets: tuple[tuple[str, str], ...] = ()
    """(Secret, key in extra_config): the shell fills these fields from Secrets of that name."""
