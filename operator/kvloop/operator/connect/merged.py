"""Several connections in one pod."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvloop.operator.connect.hf3fs import SHARED_MEMORY
from kvloop.operator.connection import Connection
from kvloop.operator.errors import ConnectError


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What a pod has so that any of its caches can be attached; each thing once."""

    volumes: tuple[Mapping[str, Any], ...]
    mounts: tuple[Mapping[str, Any], ...]
    env: tuple[Mapping[str, Any], ...]
    flags: tuple[str, ...]
    pod_labels: Mapping[str, str]
    pod_annotations: Mapping[str, str]
    resources: Mapping[str, str]
    host_network: bool
    ipc_lock: bool


def merged(connections: Sequence[Connection]) -> Merged:
    """ConnectError where two cannot be in one pod: another volume at the same place, another
    value of the same label, annotation or variable; 3FS's daemons in two places."""
    _check_shared_memory(connections)
    return Merged(
        volumes=_once("volume", "name", (v for c in connections for v in c.volumes)),
        mounts=_once("mount", "mountPath", (m for c in connections for m in c.mounts)),
        env=_once("environment variable", "name", (e for c in connections for e in c.env)),
        flags=_pairs_once(connections),
        pod_labels=_joined("pod label", (c.pod_labels for c in connections)),
        pod_annotations=_joined("pod annotation", (c.pod_annotations for c in connections)),
        resources=_most(c.resources for c in connections),
        host_network=any(c.host_network for c in connections),
        ipc_lock=any(c.ipc_lock for c in connections),
    )


def _once(what: str, key: str, items: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    found: dict[str, Mapping[str, Any]] = {}
    for item in items:
        if found.setdefault(item[key], item) != item:
            raise _conflict(what, item[key])
    return tuple(found.values())


def _joined(what: str, items: Iterable[Mapping[str, str]]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name, value in (pair for item in items for pair in item.items()):
        if found.setdefault(name, value) != value:
            raise _conflict(what, name)
    return found


def _pairs_once(connections: Sequence[Connection]) -> tuple[str, ...]:
    pairs = [tuple(c.flags[i : i + 2]) for c in connections for i in range(0, len(c.flags), 2)]
    return tuple(word for pair in dict.fromkeys(pairs) for word in pair)


def _most(items: Iterable[Mapping[str, str]]) -> Mapping[str, str]:
    """A pod uses one cache's devices at a time; the counts are whole numbers."""
    found: dict[str, str] = {}
    for name, count in (pair for item in items for pair in item.items()):
        found[name] = str(max(int(found.get(name, "0")), int(count)))
    return found


def _check_shared_memory(connections: Sequence[Connection]) -> None:
    """A side-car shares the pod's own /dev/shm, a daemon of the machine needs the machine's."""
    mounted = [c for c in connections if any(m["mountPath"] == SHARED_MEMORY for m in c.mounts)]
    own = [
        c
        for c in connections
        if c.backend == "hf3fs" and c.extra_config.get("io") != "posix" and c not in mounted
    ]
    if mounted and own:
        raise ConnectError(
            "attachableCaches",
            f"SharedCache {own[0].cache} needs the pod's own {SHARED_MEMORY}, and "
            f"{mounted[0].cache} another one there: set hf3fs.io to posix in one of them",
        )


def _conflict(what: str, name: str) -> ConnectError:
    return ConnectError(
        "attachableCaches", f"two of the SharedCaches want another {what} {name} in the same pod"
    )
