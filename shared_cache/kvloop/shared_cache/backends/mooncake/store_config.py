"""What `kvloop store` runs: a master, a store node, or both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kvloop.shared_cache.backends.mooncake.master_options import MasterOptions, quotas_yaml
from kvloop.shared_cache.backends.mooncake.masters import (
    MASTERS_PATTERN,
    parse_masters,
)
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.safe_path import checked_root

_MIN_SEGMENT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Checked when it is made: ConfigError names the field."""

    host: str = "127.0.0.1"
    """Where the master listens, and under which clients reach the segment."""
    master: str = ""
    """Where the master is that the segment joins, `host:port` or `etcd://…`; empty: one of ours."""
    port: int = 50051
    """Of our master."""
    metrics_port: int = 9003
    """Of our master's Prometheus metrics, over HTTP."""
    segment_bytes: int = 4 << 30
    """Memory of this process given to the store; 0: a master only."""
    segment_port: int | None = None
    """Makes `host:segment_port` the segment's name, for `preferred_segments`; None: any."""
    protocol: Literal["tcp", "rdma"] = "tcp"
    device_name: str = ""
    """RDMA devices, comma-separated; empty: all."""
    ssd_dir: str = ""
    """Directory of this node's that pages are written to when memory is short; empty: none."""
    join_s: float = 0.0
    """How long the segment looks for that master at first; masters in HA elect for 30 s anyway."""
    restart_master: bool = False
    """Start our master again when it dies; without `ha` its keys are lost either way."""
    ha: str = ""
    """`etcd://host:port;host:port`: our master is one of several, and the segment follows the
    leader."""
    cluster_id: str = ""
    """Which of the clusters in that etcd; empty: Mooncake's default."""
    client_ttl_s: int = 10
    """A store node that our master has not heard of for so long is given up."""
    tenant_quotas: Mapping[str, int] = field(default_factory=dict)
    """Bytes by tenant; where given, a tenant that is not named stores nothing."""
    master_flags: tuple[str, ...] = ()
    """More of our master's flags, as `name=value`."""

    def __post_init__(self) -> None:
        for name in ("port", "metrics_port", "segment_port"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 65536:
                raise ConfigError(f"{name} must be within 1 .. 65535, got {value}")
        if self.port == self.metrics_port:
            raise ConfigError(f"metrics_port must differ from port, got {self.port} for both")
        if self.protocol not in ("tcp", "rdma"):
            raise ConfigError(f"protocol must be tcp or rdma, got {self.protocol!r}")
        self._check_segment()
        self._check_master()
        _ = self.master_options, quotas_yaml(self.tenant_quotas)  # raise for what is wrong in them

    def _check_segment(self) -> None:
        is_master_only = self.segment_bytes == 0 and not self.master
        if self.segment_bytes < _MIN_SEGMENT_BYTES and not is_master_only:
            raise ConfigError(
                f"segment_bytes must be at least {_MIN_SEGMENT_BYTES}, got {self.segment_bytes}"
                + ("" if self.master else ", or 0 for a master only")
            )
        if self.ssd_dir:
            checked_root("ssd_dir", self.ssd_dir)

    def _check_master(self) -> None:
        for name in ("master", "ha"):
            value = getattr(self, name)
            if value and not re.fullmatch(MASTERS_PATTERN, value):
                raise ConfigError(f"{name} must be host:port or etcd://host:port, got {value!r}")
        if not self.master:
            return
        if len(parse_masters(self.master).addresses) > 1:
            raise ConfigError(
                f"master: a store node follows one address or etcd://host:port, got {self.master!r}"
            )
        for name in ("ha", "restart_master", "tenant_quotas", "master_flags"):
            if getattr(self, name):
                raise ConfigError(f"{name} is of our own master, and with master there is none")

    @property
    def entry(self) -> str:
        """Where the segment and clients find the master."""
        return self.master or self.ha or f"{self.host}:{self.port}"

    @property
    def master_options(self) -> MasterOptions:
        """All of our master's but the file of quotas."""
        return MasterOptions(
            registry=self.ha,
            cluster_id=self.cluster_id,
            client_ttl_s=self.client_ttl_s,
            offloads=bool(self.ssd_dir),
            flags=self.master_flags,
        )
