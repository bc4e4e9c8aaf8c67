"""`kvloop store` hands each of its flags on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import pytest

from kvloop.cli.main import main
from kvloop.shared_cache.backends.mooncake import store_server
from kvloop.shared_cache.backends.mooncake.store_config import StoreConfig

_NAMES = [field.name for field in fields(StoreConfig)]
OURS = """--host 10.0.0.1 --port 7001 --metrics-port 7002 --segment-size 1.5 --segment-port 7003
    --protocol rdma --device-name mlx5_0,mlx5_1 --ssd-dir /mnt/ssd --restart-master --join-s 9
    --ha etcd://10.0.0.9:2379 --cluster-id blue --client-ttl 7 --tenant-quotas {"a":0.5}
    --master-flag eviction_ratio=0.1 --master-flag root_fs_dir=/x"""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], StoreConfig]:
    """What would be run with these flags."""
    configs: list[StoreConfig] = []
    monkeypatch.setattr(store_server, "run_store", lambda config, _: configs.append(config))

    def run(flags: str) -> StoreConfig:
        assert main(["store", *flags.split()]) == 0
        return configs.pop()

    return run


def test_each_flag_reaches_the_store(started: Callable[[str], StoreConfig]) -> None:
    config = started(OURS)
    assert config == StoreConfig(
        host="10.0.0.1",
        port=7001,
        metrics_port=7002,
        segment_bytes=3 << 29,
        segment_port=7003,
        protocol="rdma",
        device_name="mlx5_0,mlx5_1",
        ssd_dir="/mnt/ssd",
        join_s=9.0,
        restart_master=True,
        ha="etcd://10.0.0.9:2379",
        cluster_id="blue",
        client_ttl_s=7,
        tenant_quotas={"a": 1 << 29},
        master_flags=("eviction_ratio=0.1", "root_fs_dir=/x"),
    )
    same = {name for name in _NAMES if getattr(config, name) == getattr(StoreConfig(), name)}
    assert same == {"master"}  # it excludes flags of a master of ours
    assert started("--master 10.0.0.1:7001").master == "10.0.0.1:7001"


def test_without_flags_it_is_a_master_and_a_gibibyte(
    started: Callable[[str], StoreConfig],
) -> None:
    assert started("") == StoreConfig(segment_bytes=1 << 30)


@pytest.mark.parametrize("gib", ["0", "-1", "true", '"8"', "1e300"])
def test_a_quota_that_is_no_size_is_refused_by_its_name(
    started: Callable[[str], StoreConfig], gib: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["store", "--tenant-quotas", f'{{"team-a": {gib}}}']) != 0
    assert "--tenant-quotas: 'team-a' must have GiB above 0" in capsys.readouterr().err
