"""Backend aibrix: AIBrix's library on a volume."""

from __future__ import annotations

from kvloop.operator.connect.parts import (
    STORE_DIRECTORY,
    container_mount,
    mount_path,
    pod_volume,
    volume_name,
    with_extra,
)
from kvloop.operator.connection import Connection
from kvloop.operator.types.shared_cache import SharedCache


def connect_aibrix(cache: SharedCache) -> Connection:
    """Its directory is below the volume's own, which may hold other things such as lost+found."""
    name, store = cache.metadata.name, cache.spec.aibrix
    assert store is not None
    mount = mount_path(name)
    ours = {
        "l2_cache_backend": store.l2_cache_backend,
        "root": f"{mount}/{STORE_DIRECTORY}",
        "mount_point": mount,
    }
    return Connection(
        cache=name,
        backend="aibrix",
        extra_config=with_extra("aibrix", ours, store.extra_config),
        volumes=(pod_volume(volume_name(name), store.volume),),
        mounts=(container_mount(volume_name(name), store.volume, mount),),
    )
