"""Backend file: a directory of a volume that all nodes mount."""

from __future__ import annotations

from typing import Any

from kvloop.operator.connect.parts import (
    container_mount,
    mount_path,
    pod_volume,
    volume_name,
    with_extra,
)
from kvloop.operator.connection import Connection
from kvloop.operator.quantity import num_bytes
from kvloop.operator.types.shared_cache import SharedCache


def connect_file(cache: SharedCache) -> Connection:
    """An unmounted volume never fills the disk beneath: the store refuses to serve then."""
    name, store = cache.metadata.name, cache.spec.file
    assert store is not None
    mount = mount_path(name)
    ours: dict[str, Any] = {"root": f"{mount}/{store.directory}", "mount_point": mount}
    if store.capacity is not None:
        ours["capacity_bytes"] = num_bytes(store.capacity)
    return Connection(
        cache=name,
        backend="file",
        extra_config=with_extra("file", ours, store.extra_config),
        volumes=(pod_volume(volume_name(name), store.volume),),
        mounts=(container_mount(volume_name(name), store.volume, mount),),
    )
