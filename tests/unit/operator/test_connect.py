"""How pods reach each kind of SharedCache."""

from __future__ import annotations

from typing import Any

import pytest
from shared_caches import cache

from kvloop.operator.connect import connect
from kvloop.operator.connect.merged import merged
from kvloop.operator.connect.parts import volume_name
from kvloop.operator.connection import Connection, with_secrets
from kvloop.operator.errors import ConnectError
from kvloop.operator.types.shared_cache import SharedCache
from kvloop.shared_cache.backends.mooncake.config import parse_config as parse_mooncake
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.store_tools.address import StoreAddress

CLAIM = {"persistentVolumeClaim": "pages"}
STORES: dict[str, Any] = {"stores": {}}


def _connected(wanted: SharedCache, *others: SharedCache) -> Connection:
    return connect(wanted, {one.metadata.name: one for one in others})


@pytest.mark.parametrize(
    "wanted",
    [
        cache("mooncake", **STORES),
        cache("mooncake", **STORES, tenant="a", tenantQuotas={"a": "1Gi"}, softPin=True),
        cache("file", volume=CLAIM, capacity="1Gi"),
        cache("hf3fs", volume={"hostPath": "/3fs/cluster"}),
        cache("nixl", plugin="POSIX", volume=CLAIM, capacity="1Gi"),
        cache("nixl", plugin="UCX", store={}),
        cache("aibrix", volume=CLAIM),
    ],
    ids=lambda one: one.spec.backend,
)
def test_the_backends_own_parser_takes_the_extra_config(wanted: SharedCache) -> None:
    found = _connected(wanted)
    shape = PageShape(num_layers=1, page_size=16, num_kv_heads=1, head_size=8, itemsize=2)
    address = StoreAddress(backend=found.backend, config=dict(found.extra_config))

    assert address.opener(HostPool(shape, 1), bytes(32)) is not None


def test_mooncake_is_reached_by_the_service_before_its_leader() -> None:
    found = _connected(cache("mooncake", stores={}, masters={"port": 1234, "metricsPort": 1235}))

    assert found.backend == "mooncake"
    assert found.extra_config["master_server_address"] == "mc-master.ns.svc:1234"
    assert found.extra_config["master_metrics_address"] == "mc-master.ns.svc:1235"
    assert found.extra_config["local_hostname"] == "${POD_IP}"


def test_mooncake_with_etcd_is_looked_up_there_and_listed_at_each_master() -> None:
    masters = {
        "replicas": 2,
        "highAvailability": "etcd",
        "etcdEndpoints": ["etcd-0:2379", "etcd-1:2379"],
    }
    config = parse_mooncake(_connected(cache("mooncake", masters=masters, stores={})).extra_config)

    assert config.master_server_address == "etcd://etcd-0:2379;etcd-1:2379"
    assert config.cluster_id == "ns-mc"
    assert config.metrics_addresses == [
        ("mc-master-0.mc-masters.ns.svc", 9003),
        ("mc-master-1.mc-masters.ns.svc", 9003),
    ]


def test_an_external_mooncake_is_reached_at_its_own_address() -> None:
    config = _connected(cache("mooncake", external="m0:50051,m1:50051")).extra_config

    assert config["master_server_address"] == "m0:50051,m1:50051"
    assert config["master_metrics_address"] == "m0:9003,m1:9003"


def test_mooncake_over_rdma_brings_devices_memory_rights_and_the_machines_network() -> None:
    rdma = {
        "resourceName": "rdma/hca",
        "count": 2,
        "devices": ["mlx5_0", "mlx5_1"],
        "hostNetwork": True,
        "ipcLock": True,
    }
    found = _connected(cache("mooncake", stores={}, protocol="rdma", rdma=rdma, replicas=2))

    assert found.resources == {"rdma/hca": "2"}
    assert found.host_network and found.ipc_lock
    assert found.extra_config["protocol"] == "rdma"
    assert found.extra_config["device_name"] == "mlx5_0,mlx5_1"
    assert found.extra_config["replica_num"] == 2


def test_mooncake_over_tcp_asks_for_nothing_special() -> None:
    found = _connected(cache("mooncake", **STORES))

    assert (found.resources, found.host_network, found.ipc_lock) == ({}, False, False)
    assert (found.volumes, found.mounts) == ((), ())


def test_mooncakes_tenant_and_pin_reach_the_nodes() -> None:
    quotas = {"team-a": "1Gi"}
    wanted = cache("mooncake", stores={}, tenant="team-a", tenantQuotas=quotas, softPin=True)
    config = _connected(wanted).extra_config

    assert (config["tenant_id"], config["with_soft_pin"]) == ("team-a", True)


def test_an_unmounted_volume_never_fills_the_disk_beneath() -> None:
    found = _connected(cache("file", "f", volume=CLAIM, directory="a/b", capacity="2Gi"))

    assert found.extra_config == {
        "root": "/var/lib/kvloop/cache/f/a/b",
        "mount_point": "/var/lib/kvloop/cache/f",
        "capacity_bytes": 2 << 30,
    }
    assert found.volumes[0]["persistentVolumeClaim"] == {"claimName": "pages"}
    assert found.mounts == ({"name": "cache-f", "mountPath": "/var/lib/kvloop/cache/f"},)


def test_a_host_path_must_be_there_and_later_mounts_below_it_are_seen() -> None:
    found = _connected(cache("file", volume={"hostPath": "/mnt/nfs"}))

    assert found.volumes[0]["hostPath"] == {"path": "/mnt/nfs", "type": "Directory"}
    assert found.mounts[0]["mountPropagation"] == "HostToContainer"


def test_3fs_of_the_machine_shares_the_machines_memory_with_its_daemon() -> None:
    found = _connected(cache("hf3fs", volume={"hostPath": "/3fs/stage"}, directory="kv"))

    memory, pages = found.volumes
    assert memory["hostPath"] == {"path": "/dev/shm", "type": "Directory"}
    assert pages["hostPath"]["path"] == "/3fs/stage"
    assert found.mounts[0]["mountPath"] == "/dev/shm"
    assert found.mounts[1]["mountPath"] == "/3fs"
    assert found.mounts[1]["mountPropagation"] == "HostToContainer"
    assert found.extra_config == {"mount": "/3fs", "directory": "kv", "io": "auto"}


def test_a_claim_of_3fs_sees_a_mount_that_comes_again() -> None:
    found = _connected(cache("hf3fs", volume=CLAIM, io="posix"))

    assert [mount["mountPropagation"] for mount in found.mounts] == ["HostToContainer"]


def test_a_side_car_of_3fs_keeps_the_pods_own_shared_memory() -> None:
    fuse = {"podLabels": {"threefs/mountpath": "3fs"}, "podAnnotations": {"a": "b"}}
    found = _connected(cache("hf3fs", fuse=fuse))

    assert (found.volumes, found.mounts) == ((), ())
    assert found.pod_labels == {"threefs/mountpath": "3fs"}
    assert found.pod_annotations == {"a": "b"}


def test_a_claim_of_3fs_takes_nothing_of_the_machine_unless_usrbio_was_asked_for() -> None:
    auto = _connected(cache("hf3fs", volume=CLAIM))
    usrbio = _connected(cache("hf3fs", volume=CLAIM, io="usrbio"))

    assert (auto.extra_config["io"], len(auto.volumes)) == ("posix", 1)
    assert usrbio.extra_config["io"] == "usrbio"
    assert usrbio.volumes[0]["hostPath"]["path"] == "/dev/shm"


def test_a_side_car_and_a_daemon_of_the_machine_cannot_share_one_memory() -> None:
    machine = _connected(cache("hf3fs", "a", volume={"hostPath": "/a"}, mountPath="/a"))
    fuse = {"podLabels": {"x": "y"}}
    side_car = _connected(cache("hf3fs", "b", fuse=fuse, mountPath="/b"))
    by_posix = _connected(cache("hf3fs", "b", fuse=fuse, mountPath="/b", io="posix"))

    with pytest.raises(ConnectError, match="SharedCache b needs the pod's own /dev/shm"):
        merged([machine, side_car])
    assert merged([machine, by_posix]).mounts


def test_shared_memory_of_the_pods_own_has_the_size_that_was_asked_for() -> None:
    found = _connected(cache("hf3fs", volume=CLAIM, sharedMemory="8Gi"))

    assert found.volumes[0]["emptyDir"] == {"medium": "Memory", "sizeLimit": "8Gi"}


def test_posix_calls_need_no_shared_memory() -> None:
    found = _connected(cache("hf3fs", volume=CLAIM, io="posix"))

    assert [volume["name"] for volume in found.volumes] == ["cache-mc"]


def test_a_bucket_gets_its_keys_from_the_secret() -> None:
    wanted = cache(
        "nixl",
        plugin="OBJ",
        bucket="pages",
        endpoint="https://s3.example:9000",
        credentials={"name": "s3"},
    )
    found = _connected(wanted)
    config, missing = with_secrets(found, {("s3", "access_key"): "A", ("s3", "secret_key"): "S\n"})

    assert "access_key" not in found.extra_config
    assert missing == []
    assert config == {
        "plugin": "OBJ",
        "bucket": "pages",
        "endpoint_override": "https://s3.example:9000",
        "access_key": "A",
        "secret_key": "S",
    }


def test_secrets_that_are_not_there_are_named() -> None:
    wanted = cache("dynamic", modulePath="m", className="C", configSecret={"name": "s", "key": "k"})
    found = _connected(wanted)

    for secrets in ({}, {("s", "k"): "no JSON"}, {("s", "k"): "[]"}):
        _, missing = with_secrets(found, secrets)
        assert [(one.secret, one.key) for one in missing] == [("s", "k")]


def test_a_dynamic_class_is_allowed_from_the_start_and_gets_its_secret_fields() -> None:
    wanted = cache(
        "dynamic",
        modulePath="acme.kv",
        className="Store",
        interfaceV1=True,
        extraConfig={"address": "a:1"},
        configSecret={"name": "s", "key": "k"},
        volume=CLAIM,
    )
    found = _connected(wanted)
    config, _ = with_secrets(found, {("s", "k"): '{"token": "t", "address": "other"}'})

    assert found.flags == ("--hicache-dynamic-modules", "acme.kv")
    assert found.mounts[0]["mountPath"] == "/var/lib/kvloop/cache/mc"
    assert config == {
        "backend_name": "mc",
        "module_path": "acme.kv",
        "class_name": "Store",
        "interface_v1": 1,
        "address": "a:1",
        "token": "t",
    }


def test_a_memory_server_is_reached_by_its_service_or_where_it_is_already() -> None:
    here = _connected(cache("nixl", plugin="UCX", store={"port": 5000}))
    there = _connected(cache("nixl", plugin="UCX", server="10.0.0.7:50061"))

    assert here.extra_config == {"plugin": "UCX", "server": "mc-nixl.ns.svc:5000"}
    assert there.extra_config["server"] == "10.0.0.7:50061"


def test_zones_reach_both_parts() -> None:
    local = cache("file", "near", volume=CLAIM)
    central = cache(
        "dynamic", "far", modulePath="m", className="C", configSecret={"name": "s", "key": "k"}
    )
    zones = cache("zones", "z", zone="edge-a", local={"name": "near"}, central={"name": "far"})
    found = _connected(zones, local, central)
    config, missing = with_secrets(found, {("s", "k"): '{"token": "t"}'})

    assert missing == []
    assert config["zone"] == "edge-a"
    assert config["local"]["backend"] == "file"
    assert config["central"]["config"]["token"] == "t"
    assert [volume["name"] for volume in found.volumes] == ["cache-near"]
    assert found.flags == ("--hicache-dynamic-modules", "m")


def test_zones_name_the_part_that_is_not_there() -> None:
    zones = cache("zones", "z", zone="e", local={"name": "near"}, central={"name": "far"})

    with pytest.raises(ConnectError, match=r"zones\.local\.name: there is no SharedCache 'near'"):
        _connected(zones)


def test_zones_in_zones_are_refused() -> None:
    zones = cache("zones", "z", zone="e", local={"name": "near"}, central={"name": "far"})
    near = cache("zones", "near", zone="e", local={"name": "a"}, central={"name": "b"})

    with pytest.raises(ConnectError, match="itself of backend zones"):
        _connected(zones, near)


def test_further_fields_must_not_set_what_the_operator_sets() -> None:
    wanted = cache("file", volume=CLAIM, extraConfig={"root": "/etc", "num_threads": 4})

    with pytest.raises(ConnectError, match=r"file\.extraConfig\.root"):
        _connected(wanted)


def test_further_fields_reach_the_backend() -> None:
    wanted = cache("file", volume=CLAIM, extraConfig={"num_threads": 4})

    assert _connected(wanted).extra_config["num_threads"] == 4


def test_names_of_volumes_are_labels_and_differ() -> None:
    names = {volume_name(name) for name in ("a", "a.b", "a-b", "x" * 200, "x" * 199 + "y")}

    assert len(names) == 5
    assert all(len(name) <= 63 and "." not in name for name in names)


def test_several_caches_in_one_pod_have_each_thing_once() -> None:
    three_fs = [
        _connected(cache("hf3fs", name, volume={"hostPath": f"/{name}"}, mountPath=f"/{name}"))
        for name in ("a", "b")
    ]
    together = merged([*three_fs, _connected(cache("mooncake", **STORES))])

    assert [v["name"] for v in together.volumes] == ["cache-shared-memory", "cache-a", "cache-b"]
    assert len({mount["mountPath"] for mount in together.mounts}) == 3


def test_two_caches_at_one_place_cannot_be_in_one_pod() -> None:
    three_fs = [
        _connected(cache("hf3fs", name, volume={"hostPath": f"/{name}"})) for name in ("a", "b")
    ]

    with pytest.raises(ConnectError, match="want another mount /3fs"):
        merged(three_fs)


def test_two_side_cars_cannot_be_in_one_pod() -> None:
    fuse = [
        _connected(cache("hf3fs", name, fuse={"podLabels": {"cluster": name}}))
        for name in ("a", "b")
    ]

    with pytest.raises(ConnectError, match="pod label cluster"):
        merged(fuse)


def test_a_pod_gets_the_devices_of_the_cache_that_wants_most() -> None:
    caches = [
        _connected(
            cache(
                "mooncake",
                name,
                stores={},
                protocol="rdma",
                rdma={"resourceName": "rdma/hca", "count": count, "ipcLock": count == 1},
            )
        )
        for name, count in (("a", 1), ("b", 2))
    ]
    together = merged(caches)

    assert together.resources == {"rdma/hca": "2"}
    assert together.ipc_lock and not together.host_network


def test_equal_modules_are_allowed_once() -> None:
    caches = [
        _connected(cache("dynamic", name, modulePath="m", className="C")) for name in ("a", "b")
    ]

    assert merged(caches).flags == ("--hicache-dynamic-modules", "m")
