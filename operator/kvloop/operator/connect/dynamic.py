"""Backend dynamic: a class of the user's own."""

from __future__ import annotations

from kvloop.operator.connect.parts import (
    container_mount,
    mount_path,
    pod_volume,
    volume_name,
    with_extra,
)
from kvloop.operator.connection import Connection, SecretField
from kvloop.operator.types.shared_cache import Dynamic, SharedCache


def connect_dynamic(cache: SharedCache) -> Connection:
    """The module is allowed from the pods' start, so that the class can be attached later."""
    name, store = cache.metadata.name, cache.spec.dynamic
    assert store is not None
    ours = {
        "backend_name": name,
        "module_path": store.module_path,
        "class_name": store.class_name,
        "interface_v1": int(store.interface_v1),
    }
    volume = store.volume
    return Connection(
        cache=name,
        backend="dynamic",
        extra_config=with_extra("dynamic", ours, store.extra_config),
        volumes=() if volume is None else (pod_volume(volume_name(name), volume),),
        mounts=()
        if volume is None
        else (container_mount(volume_name(name), volume, mount_path(name)),),
        flags=("--hicache-dynamic-modules", store.module_path),
        secrets=_secrets(store),
    )


def _secrets(store: Dynamic) -> tuple[SecretField, ...]:
    if store.config_secret is None:
        return ()
    return (
        SecretField(secret=store.config_secret.name, key=store.config_secret.key, is_json=True),
    )
