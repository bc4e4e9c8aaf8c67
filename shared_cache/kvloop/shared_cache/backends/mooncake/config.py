"""The extra config of `mooncake`; the names are SGLang's and Mooncake's where they have one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from kvloop.shared_cache.backend_config import parse_backend_config
from kvloop.shared_cache.backends.mooncake.masters import (
    MASTERS_PATTERN,
    Masters,
    parse_addresses,
    parse_masters,
)
from kvloop.shared_cache.errors import ConfigError

Small = Annotated[int, msgspec.Meta(ge=0, le=255)]
_LONGEST_TENANT = 256


class MooncakeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """See the module."""

    master_server_address: Annotated[str, msgspec.Meta(pattern=MASTERS_PATTERN)]
    """`host:port` of the master; several with commas, of which the first that serves is taken; or
    where the leader is registered: `etcd://host:port;host:port`."""
    master_metrics_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 9003
    """HTTP port of the masters: objects are listed there."""
    master_metrics_address: str = ""
    """`host:port` of that, several with commas; empty: the masters' hosts with the port above."""
    cluster_id: str = ""
    """Which of the clusters registered in one etcd; empty: Mooncake's default."""
    metadata_server: str = "P2PHANDSHAKE"
    local_hostname: Annotated[str, msgspec.Meta(min_length=1)] = "127.0.0.1"
    """Under which other clients reach this one."""
    global_segment_size: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Bytes of this process's memory given to the store; 0: a client only."""
    local_buffer_size: Annotated[int, msgspec.Meta(ge=1 << 20)] = 16 << 20
    """Bytes for small records in flight."""

    protocol: Literal["tcp", "rdma"] = "tcp"
    device_name: str | list[str] = ""
    """RDMA devices, a list or comma-separated; empty: all."""
    gid_index: Small | None = None
    """Entry of the RDMA port's GID table; unset: found by the library."""
    ib_port: Annotated[int, msgspec.Meta(ge=1, le=255)] | None = None
    traffic_class: Small | None = None
    service_level: Annotated[int, msgspec.Meta(ge=0, le=15)] | None = None
    mtu: Literal[512, 1024, 2048, 4096] | None = None
    environment: dict[str, str] = {}
    """More of the library's own settings: names that start with MC_."""

    replica_num: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    """Copies of each object, on as many segments; fewer where there are fewer."""
    with_soft_pin: bool = False
    """Pages are evicted only when nothing else is left."""
    soft_pin_ttl_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """From a page's last use; unset: the master's."""
    with_hard_pin: bool = False
    """Pages are never evicted: a full store takes no more."""
    preferred_segments: list[str] = []
    """Names of segments, `host:port`, to place pages on while they have room."""
    tenant_id: str = ""
    """Whose quota pages count on, where the master has tenants; empty: Mooncake's default."""

    @property
    def masters(self) -> Masters:
        """The parsed address."""
        return parse_masters(self.master_server_address)

    @property
    def metrics_addresses(self) -> list[tuple[str, int]]:
        """Where the masters answer over HTTP; empty where that is not known."""
        if self.master_metrics_address:
            return parse_addresses("master_metrics_address", self.master_metrics_address)
        return [(host, self.master_metrics_port) for host, _ in self.masters.addresses]

    @property
    def devices(self) -> str:
        """Comma-separated."""
        names = self.device_name
        return names if isinstance(names, str) else ",".join(names)


def parse_config(fields: Mapping[str, Any]) -> MooncakeConfig:
    """Raises ConfigError naming the field that is wrong."""
    config = parse_backend_config("mooncake", fields, MooncakeConfig)
    _ = config.masters, config.metrics_addresses  # raise where an address is wrong
    for name in config.environment:
        if not re.fullmatch(r"MC_[A-Z0-9_]+", name):
            _refuse("environment", f"{name!r} is no setting of Mooncake's; they start with MC_")
    if config.soft_pin_ttl_s is not None and not config.with_soft_pin:
        _refuse("soft_pin_ttl_s", "is of no effect without with_soft_pin: set that to true")
    check_tenant("storage backend 'mooncake': extra config: tenant_id", config.tenant_id)
    return config


def check_tenant(field: str, name: str) -> None:
    """Raise ConfigError naming the field where the master would refuse the name."""
    if name.startswith("_") or not name.isprintable() or len(name) > _LONGEST_TENANT:
        raise ConfigError(
            f"{field}: must be at most {_LONGEST_TENANT} printable characters and not start with "
            f"'_', got {name[:80]!r}"
        )


def _refuse(field: str, why: str) -> None:
    raise ConfigError(f"storage backend 'mooncake': extra config: {field}: {why}")
