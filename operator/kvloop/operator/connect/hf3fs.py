"""Backend hf3fs: a 3FS that is there, by a mount of the nodes' or by a side-car."""

from __future__ import annotations

from typing import Any

from kvloop.operator.connect.parts import container_mount, pod_volume, volume_name, with_extra
from kvloop.operator.connection import Connection
from kvloop.operator.types.shared_cache import SharedCache, ThreeFs

SHARED_MEMORY = "/dev/shm"
SHARED_MEMORY_VOLUME = "cache-shared-memory"
"""One name for all 3FS caches of a pod, which has one /dev/shm."""


def connect_hf3fs(cache: SharedCache) -> Connection:
    """`require_mount` keeps its default: without a 3FS there nothing is served or written."""
    name, store = cache.metadata.name, cache.spec.hf3fs
    assert store is not None
    ours = {"mount": store.mount_path, "directory": store.directory, "io": _io(store)}
    config = with_extra("hf3fs", ours, store.extra_config)
    memory = _shared_memory(store)
    volumes = [] if memory is None else [memory]
    mounts = [] if memory is None else [{"name": memory["name"], "mountPath": SHARED_MEMORY}]
    if store.volume is not None:
        volumes.append(pod_volume(volume_name(name), store.volume))
        mounts.append(_mount(volume_name(name), store))
    fuse = store.fuse
    return Connection(
        cache=name,
        backend="hf3fs",
        extra_config=config,
        volumes=tuple(volumes),
        mounts=tuple(mounts),
        pod_labels=fuse.pod_labels if fuse is not None else {},
        pod_annotations=fuse.pod_annotations if fuse is not None else {},
    )


def _io(store: ThreeFs) -> str:
    """Of a claim nothing is taken from the machine unless it was asked for: POSIX calls then."""
    has_claim = store.volume is not None and store.volume.persistent_volume_claim is not None
    if store.io == "auto" and has_claim and store.shared_memory is None:
        return "posix"
    return store.io


def _mount(name: str, store: ThreeFs) -> dict[str, Any]:
    """A restarted daemon mounts anew, also below a claim: the container must see it."""
    assert store.volume is not None
    mount = container_mount(name, store.volume, store.mount_path)
    return {**mount, "mountPropagation": "HostToContainer"}


def _shared_memory(store: ThreeFs) -> dict[str, Any] | None:
    """3FS's daemon opens the rings by their names in /dev/shm: pods and daemon must share it.

    A side-car shares the pod's own, which containers have in common unless a volume is mounted
    there; a daemon of the machine has the machine's.
    """
    if _io(store) == "posix":
        return None
    if store.shared_memory is not None:
        empty = {"medium": "Memory", "sizeLimit": store.shared_memory}
        return {"name": SHARED_MEMORY_VOLUME, "emptyDir": empty}
    if store.volume is not None:
        host = {"path": SHARED_MEMORY, "type": "Directory"}
        return {"name": SHARED_MEMORY_VOLUME, "hostPath": host}
    return None
