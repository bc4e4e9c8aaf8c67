"""What `kvloop store` may be told, and what its master is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvloop.shared_cache.backends.mooncake.master_options import MasterOptions, quotas_yaml
from kvloop.shared_cache.backends.mooncake.store_config import StoreConfig
from kvloop.shared_cache.errors import ConfigError


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"segment_port": 0}, "segment_port must be within 1 .. 65535, got 0"),
        ({"segment_bytes": 0, "master": "a:1"}, "segment_bytes must be at least 16777216, got 0$"),
        ({"master": "nope"}, "master must be host:port or etcd://host:port, got 'nope'"),
        ({"master": "a:1,b:2"}, "a store node follows one address or etcd://host:port"),
        ({"master": "a:1", "ha": "etcd://b:2"}, "ha is of our own master, and with master there"),
        ({"master": "a:1", "tenant_quotas": {"a": 1}}, "tenant_quotas is of our own master"),
        ({"ha": "redis://a:1"}, "ha must be etcd://host:port;host:port, got 'redis://a:1'"),
        ({"client_ttl_s": 0}, "client_ttl_s must be 1 or more, got 0"),
        ({"ssd_dir": "/a/../b"}, "ssd_dir: '/a/../b' must not contain '..'"),
        ({"tenant_quotas": {"a": 0}}, "tenant_quotas: 'a' must have more than 0 bytes, got 0"),
        ({"tenant_quotas": {"": 1}}, "tenant_quotas: a tenant's name must not be empty"),
        ({"tenant_quotas": {"_a": 1}}, "tenant_quotas: .* not start with '_', got '_a'"),
        ({"master_flags": ("x",)}, "master flag 'x' must be name=value"),
        ({"master_flags": ("rpc_port=1",)}, "master flag 'rpc_port=1': kvloop sets rpc_port"),
    ],
)
def test_a_wrong_option_names_itself(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StoreConfig(**fields)


def test_a_master_alone_gives_no_memory() -> None:
    assert StoreConfig(segment_bytes=0).entry == "127.0.0.1:50051"


def test_the_segment_follows_the_master_that_it_is_told() -> None:
    assert StoreConfig(master="m:1").entry == "m:1"
    assert StoreConfig(ha="etcd://e:1").entry == "etcd://e:1"


def test_the_master_is_told_all_that_it_should_know() -> None:
    config = StoreConfig(
        ha="etcd://e:1;f:2",
        cluster_id="east",
        client_ttl_s=4,
        ssd_dir="/x",
        master_flags=("eviction_ratio=0.1", "client_ttl=9"),
    )
    assert config.master_options.arguments == [
        "--client_ttl=4",
        "--enable_ha=true",
        "--ha_backend_type=etcd",
        "--ha_backend_connstring=e:1;f:2",
        "--enable_oplog=true",
        "--cluster_id=east",
        "--enable_offload=true",
        "--eviction_ratio=0.1",
        "--client_ttl=9",
    ]


def test_quotas_make_the_master_strict() -> None:
    assert MasterOptions(tenant_quotas=Path("/q.yaml")).arguments[1:] == [
        "--enable_multi_tenants=true",
        "--tenant_quota_connector_uri=/q.yaml",
    ]


def test_quotas_are_written_as_the_master_reads_them() -> None:
    assert quotas_yaml({"team-a": 5, 'say "hi"': 7}) == (
        "version: 1\ntenants:\n"
        '  - name: "team-a"\n    quota: 5B\n'
        '  - name: "say \\"hi\\""\n    quota: 7B\n'
    )
