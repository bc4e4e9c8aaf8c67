"""Backend nixl: files of a volume, objects of a bucket, memory of a server."""

from __future__ import annotations

from typing import Any

from kvloop.operator.connect.parts import (
    STORE_DIRECTORY,
    container_mount,
    mount_path,
    pod_volume,
    volume_name,
    with_extra,
)
from kvloop.operator.connection import Connection, SecretField
from kvloop.operator.quantity import num_bytes
from kvloop.operator.types.shared_cache import Nixl, SharedCache

CREDENTIALS = ("access_key", "secret_key")
"""Keys of the Secret, and fields of the backend."""


def nixl_service(cache: SharedCache) -> str:
    """Name of the Service before the memory server that is run here."""
    return f"{cache.metadata.name}-nixl"


def connect_nixl(cache: SharedCache) -> Connection:
    """Which fields there are depends on the plugin."""
    name, store = cache.metadata.name, cache.spec.nixl
    assert store is not None
    volume = store.volume
    return Connection(
        cache=name,
        backend="nixl",
        extra_config=with_extra("nixl", _config(cache, store), store.extra_config),
        volumes=() if volume is None else (pod_volume(volume_name(name), volume),),
        mounts=()
        if volume is None
        else (container_mount(volume_name(name), volume, mount_path(name)),),
        secrets=_secrets(store),
    )


def nixl_server(cache: SharedCache) -> str:
    """host:port of the memory server, run here or there already."""
    store = cache.spec.nixl
    assert store is not None
    if store.store is None:
        assert store.server is not None
        return store.server
    return f"{nixl_service(cache)}.{cache.metadata.namespace}.svc:{store.store.port}"


def _config(cache: SharedCache, store: Nixl) -> dict[str, Any]:
    config: dict[str, Any] = {"plugin": store.plugin}
    if store.plugin == "UCX":
        return {**config, "server": nixl_server(cache)}
    if store.plugin == "OBJ":
        config["bucket"] = store.bucket
        if store.endpoint is not None:
            config["endpoint_override"] = store.endpoint
        return config
    mount = mount_path(cache.metadata.name)
    config |= {"root": f"{mount}/{STORE_DIRECTORY}", "mount_point": mount}
    if store.capacity is not None:
        config["capacity_bytes"] = num_bytes(store.capacity)
    return config


def _secrets(store: Nixl) -> tuple[SecretField, ...]:
    if store.credentials is None:
        return ()
    name = store.credentials.name
    return tuple(SecretField(secret=name, key=key, path=(key,)) for key in CREDENTIALS)
