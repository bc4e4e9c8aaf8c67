"""The options of `mooncake_master` that kvloop knows, as command-line flags."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kvloop.shared_cache.backends.mooncake.config import check_tenant
from kvloop.shared_cache.errors import ConfigError

_FLAG = re.compile(r"([a-z][a-z0-9_]*)=.*", re.DOTALL)
_OURS = {"rpc_address", "rpc_port", "port", "metrics_host", "metrics_port", "flagfile", "fromenv"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterOptions:
    """How a master runs."""

    registry: str = ""
    """`etcd://host:port;host:port`: it stands for election there, and follows the leader's log."""
    cluster_id: str = ""
    """Which of the clusters in the registry; empty: Mooncake's default."""
    client_ttl_s: int = 10
    """A store node not heard of for so long is given up, with what it holds."""
    tenant_quotas: Path | None = None
    """A file as `quotas_yaml` writes it; with it a tenant that it does not name stores nothing."""
    offloads: bool = False
    """Store nodes with an SSD directory write evicted pages there."""
    flags: tuple[str, ...] = ()
    """Any more, as `name=value`."""

    def __post_init__(self) -> None:
        if self.client_ttl_s < 1:
            raise ConfigError(f"client_ttl_s must be 1 or more, got {self.client_ttl_s}")
        if self.registry and not self.registry.startswith("etcd://"):
            raise ConfigError(f"ha must be etcd://host:port;host:port, got {self.registry!r}")
        for flag in self.flags:
            _check_flag(flag)

    @property
    def arguments(self) -> list[str]:
        """On the master's command line; later ones win."""
        arguments = [f"--client_ttl={self.client_ttl_s}"]
        if self.registry:
            endpoints = self.registry.removeprefix("etcd://")
            arguments += [
                "--enable_ha=true",
                "--ha_backend_type=etcd",
                f"--ha_backend_connstring={endpoints}",
                "--enable_oplog=true",
            ]
        if self.cluster_id:
            arguments.append(f"--cluster_id={self.cluster_id}")
        if self.tenant_quotas is not None:
            arguments += [
                "--enable_multi_tenants=true",
                f"--tenant_quota_connector_uri={self.tenant_quotas}",
            ]
        if self.offloads:
            arguments.append("--enable_offload=true")
        return arguments + [f"--{flag}" for flag in self.flags]


def quotas_yaml(quotas: Mapping[str, int]) -> str:
    """The master's policy file: bytes by tenant; raises ConfigError for what the master refuses."""
    lines = ["version: 1", "tenants:"]
    for tenant, num_bytes in quotas.items():
        if not tenant:
            raise ConfigError("tenant_quotas: a tenant's name must not be empty")
        check_tenant("tenant_quotas", tenant)
        if num_bytes <= 0:
            raise ConfigError(
                f"tenant_quotas: {tenant!r} must have more than 0 bytes, got {num_bytes}"
            )
        lines += [f"  - name: {json.dumps(tenant)}", f"    quota: {num_bytes}B"]
    return "\n".join(lines) + "\n"


def _check_flag(flag: str) -> None:
    parts = _FLAG.fullmatch(flag)
    if parts is None:
        raise ConfigError(f"master flag {flag!r} must be name=value, such as eviction_ratio=0.1")
    if parts[1] in _OURS:
        raise ConfigError(f"master flag {flag!r}: kvloop sets {parts[1]} itself")
