"""The extra config of `mooncake`: what is refused, and what the library is told."""

from __future__ import annotations

from typing import Any

import pytest

from kvloop.shared_cache.backends.mooncake.config import parse_config
from kvloop.shared_cache.backends.mooncake.environment import variables_of
from kvloop.shared_cache.errors import ConfigError

_MASTER = {"master_server_address": "a:1"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"master_server_address": "a:99999"}, "'a:99999' must be host:port with a port within 1"),
        ({"master_server_address": "a:1,b"}, r"\$.master_server_address"),
        ({"master_server_address": "ftp://a:1"}, r"\$.master_server_address"),
        ({"master_server_address": "etcd://a"}, None),
        ({"master_metrics_address": "a"}, "master_metrics_address: 'a' must be host:port"),
        ({"master_metrics_port": 0}, r"\$.master_metrics_port"),
        ({"replica_num": 0}, r"\$.replica_num"),
        ({"gid_index": -1}, r"\$.gid_index"),
        ({"mtu": 1500}, r"\$.mtu"),
        ({"environment": {"LD_PRELOAD": "x"}}, "'LD_PRELOAD' is no setting of Mooncake's"),
        ({"soft_pin_ttl_s": 5}, "soft_pin_ttl_s: is of no effect without with_soft_pin"),
        ({"tenant_id": "_system"}, "tenant_id: must be .* not start with '_', got '_system'"),
        ({"tenant_id": "a\nb"}, "tenant_id: must be at most 256 printable characters"),
        ({"tenant_id": "x" * 257}, "tenant_id: must be at most 256 printable"),
        ({"preferred_segments": "a:1"}, r"\$.preferred_segments"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], message: str | None) -> None:
    if message is None:
        parse_config({**_MASTER, **fields})
        return
    with pytest.raises(ConfigError, match=message):
        parse_config({**_MASTER, **fields})


def test_rdma_settings_become_the_librarys_variables() -> None:
    config = parse_config(
        {
            **_MASTER,
            "protocol": "rdma",
            "gid_index": 0,
            "ib_port": 2,
            "traffic_class": 106,
            "service_level": 3,
            "mtu": 4096,
            "environment": {"MC_NUM_QP_PER_EP": "4"},
        }
    )
    assert variables_of(config) == {
        "MC_GID_INDEX": "0",
        "MC_IB_PORT": "2",
        "MC_IB_TC": "106",
        "MC_IB_SL": "3",
        "MC_MTU": "4096",
        "MC_NUM_QP_PER_EP": "4",
    }


def test_what_is_not_said_is_left_to_the_library() -> None:
    assert variables_of(parse_config(_MASTER)) == {}


def test_the_cluster_is_named_to_the_library_where_it_finds_the_leader_itself() -> None:
    config = parse_config({"master_server_address": "redis://a:1", "cluster_id": "east"})
    assert variables_of(config) == {"MC_STORE_CLUSTER_ID": "east"}


@pytest.mark.parametrize("devices", ["mlx5_0,mlx5_1", ["mlx5_0", "mlx5_1"]])
def test_devices_are_a_list_or_comma_separated(devices: str | list[str]) -> None:
    assert parse_config({**_MASTER, "device_name": devices}).devices == "mlx5_0,mlx5_1"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"master_server_address": "a:1,b:2"}, [("a", 9003), ("b", 9003)]),
        ({"master_server_address": "[::1]:1", "master_metrics_port": 7}, [("[::1]", 7)]),
        ({"master_server_address": "etcd://a:1"}, []),
        ({**_MASTER, "master_metrics_address": "m:5,n:6"}, [("m", 5), ("n", 6)]),
    ],
)
def test_the_masters_are_listed_at_their_hosts_unless_told_otherwise(
    fields: dict[str, Any], expected: list[tuple[str, int]]
) -> None:
    assert parse_config(fields).metrics_addresses == expected
