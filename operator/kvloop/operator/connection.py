"""How pods reach a SharedCache: what nodes attach, and what their pods mount for it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretField:
    """A part of extra_config that lies in a Secret of the same namespace."""

    secret: str
    key: str
    """Of the Secret."""
    path: tuple[str, ...] = ()
    """Where it goes; the objects above it are there."""
    is_json: bool = False
    """An object, whose fields are added to the one at `path`; what is there already stays."""


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
    secrets: tuple[SecretField, ...] = ()
    """Fields of extra_config that lie in Secrets; `with_secrets` fills them in."""


def with_secrets(
    connection: Connection, found: Mapping[tuple[str, str], str]
) -> tuple[dict[str, Any], list[SecretField]]:
    """The whole extra config by (Secret, key), and the fields that were not found or do not parse.

    The result holds secrets: it belongs into a Secret and nowhere else.
    """
    config = copy.deepcopy(dict(connection.extra_config))
    missing = []
    for one in connection.secrets:
        text = found.get((one.secret, one.key))
        if text is None or not _put(config, one, text):
            missing.append(one)
    return config, missing


def _put(config: dict[str, Any], one: SecretField, text: str) -> bool:
    target = config
    for name in one.path if one.is_json else one.path[:-1]:
        target = target[name]
    if not one.is_json:
        target[one.path[-1]] = text.strip()
        return True
    try:
        fields = json.loads(text)
    except ValueError:
        return False
    if not isinstance(fields, dict):
        return False
    target.update({name: value for name, value in fields.items() if name not in target})
    return True
