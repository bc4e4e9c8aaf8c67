"""Backend zones: two SharedCaches, of which a pod reaches both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from kvloop.operator.connect.merged import merged
from kvloop.operator.connect.parts import with_extra
from kvloop.operator.connection import Connection
from kvloop.operator.errors import ConnectError
from kvloop.operator.types.shared_cache import SharedCache


def connect_zones(
    cache: SharedCache,
    others: Mapping[str, SharedCache],
    connect_one: Callable[[SharedCache], Connection],
) -> Connection:
    """ConnectError where a part is not there, or is zones itself."""
    zones = cache.spec.zones
    assert zones is not None
    names = {"local": zones.local.name, "central": zones.central.name}
    parts = {
        part: connect_one(_part(f"zones.{part}.name", name, others)) for part, name in names.items()
    }
    ours: dict[str, Any] = {"zone": zones.zone}
    for part, connection in parts.items():
        ours[part] = {"backend": connection.backend, "config": dict(connection.extra_config)}
    together = merged(list(parts.values()))
    return Connection(
        cache=cache.metadata.name,
        backend="zones",
        extra_config=with_extra("zones", ours, zones.extra_config),
        volumes=together.volumes,
        mounts=together.mounts,
        env=together.env,
        flags=together.flags,
        pod_labels=together.pod_labels,
        pod_annotations=together.pod_annotations,
        resources=together.resources,
        host_network=together.host_network,
        ipc_lock=together.ipc_lock,
        secrets=tuple(
            replace(one, path=(part, "config", *one.path))
            for part, connection in parts.items()
            for one in connection.secrets
        ),
    )


def _part(field: str, name: str, others: Mapping[str, SharedCache]) -> SharedCache:
    found = others.get(name)
    if found is None:
        raise ConnectError(
            field, f"there is no SharedCache {name!r} in this namespace, or its own spec is wrong"
        )
    if found.spec.backend == "zones":
        raise ConnectError(field, f"SharedCache {name!r} is itself of backend zones; name another")
    return found
