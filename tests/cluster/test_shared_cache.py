"""SharedCaches on a real cluster: what runs for them serves, and their status tells the truth."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.operator_process import operating
from cluster.shared_cache_pods import IMAGE, Cache, page_client
from cluster_namespace import Namespace
from running import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
CRDS = Path(__file__).parents[2] / "charts" / "kvloop" / "files" / "crds"
TRUTH_S = 30.0
READY, DEGRADED = ("True", "Ready"), ("True", "Degraded")


@pytest.fixture(scope="module")
def space(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    """With an operator of its own; it goes with all that is in it."""
    name = f"c-cache-{uuid.uuid4().hex[:6]}"
    space = Namespace(name=name, kubeconfig=kubeconfig)
    space.kubectl("apply", "--validate=false", "-f", str(CRDS))
    space.kubectl("create", "namespace", name)
    flags = ("--namespace", name, "--node-image", IMAGE, "--no-leader-election")
    folder = tmp_path_factory.mktemp("operator")
    try:
        with operating(folder, kubeconfig, *flags, controllers=""):
            yield space
    finally:
        space.kubectl("delete", "namespace", name, "--wait=false")


def made(space: Namespace, name: str, backend: str, **part: Any) -> Cache:
    """Applied as a user does it."""
    manifest = {
        "apiVersion": "kvloop.dev/v1alpha1",
        "kind": "SharedCache",
        "metadata": {"name": name},
        "spec": {"backend": backend, backend: part},
    }
    space.apply(json.dumps(manifest))
    return Cache(name=name, space=space)


@pytest.fixture(scope="module")
def mooncake(space: Namespace) -> Cache:
    """Two masters that elect one of them, two stores of 64 MiB."""
    masters = {"replicas": 2, "highAvailability": "lease"}
    stores = {"replicas": 2, "segmentSize": "64Mi"}
    cache = made(space, "mc", "mooncake", masters=masters, stores=stores)
    cache.wait(READY)
    return cache


def test_pages_go_to_the_stores_through_the_leaders_service(mooncake: Cache) -> None:
    with page_client(mooncake) as client:
        keys = client.put(20)
        assert len(keys) == 20
        assert client.read(keys) == keys
        wait_for("used", lambda: mooncake.status.get("usedBytes", 0) > 0, 60)
    assert mooncake.status["capacityBytes"] == 128 << 20
    assert mooncake.status["endpoint"] == f"mc-master.{mooncake.space.name}.svc:50051"


def test_exactly_one_master_leads(mooncake: Cache) -> None:
    members = [one for one in mooncake.status["members"] if one["role"] == "master"]
    assert [one["ready"] for one in members] == [True, True]
    assert [one["leader"] for one in members].count(True) == 1


def test_a_killed_store_is_told_and_comes_back(mooncake: Cache) -> None:
    with page_client(mooncake) as client:
        keys = client.put(40)
        mooncake.space.kubectl("delete", "pod", "mc-store-0", "--grace-period=0", "--force")
        mooncake.wait(DEGRADED, within_s=TRUTH_S)
        assert set(client.read(keys)) < set(keys)
        mooncake.wait(READY)
        assert len(client.put(10)) == 10


def test_another_master_leads_after_the_leader_was_killed(mooncake: Cache) -> None:
    mooncake.wait(READY)
    leader = mooncake.leader
    with page_client(mooncake) as client:
        assert len(client.put(4)) == 4
        mooncake.space.kubectl("delete", "pod", leader, "--grace-period=0", "--force")
        mooncake.wait(("False", "NoLeader"), ("False", "MasterNotReady"), within_s=TRUTH_S)
        mooncake.wait(READY, DEGRADED)
        wait_for("a page in the new leader's store", lambda: client.put(1), 90)
    mooncake.wait(READY)


def test_kubectl_scale_changes_the_stores(mooncake: Cache) -> None:
    for count in ("3", "2"):
        mooncake.space.kubectl("scale", "shc/mc", f"--replicas={count}")
        room = int(count) * (64 << 20)
        wait_for(f"{count} stores", lambda r=room: mooncake.status.get("capacityBytes") == r, 180)
        mooncake.wait(READY)
        assert mooncake.status["replicas"] == int(count)


def test_masters_may_write_their_own_lease_and_pods_only(mooncake: Cache) -> None:
    space = mooncake.space
    assert space.can("mc-master", "update", "leases.coordination.k8s.io/mc-master")
    assert space.can("mc-master", "patch", "pods/mc-master-0")
    assert not space.can("mc-master", "update", "leases.coordination.k8s.io/other")
    assert not space.can("mc-master", "patch", "pods/mc-store-0")
    assert not space.can("mc-master", "get", "secrets")


def test_a_deleted_cache_takes_all_along(space: Namespace, mooncake: Cache) -> None:
    space.kubectl("delete", "shc", "mc")
    kinds = "statefulset,service,pod,lease,role,rolebinding,serviceaccount,pdb"
    named = ("get", kinds, "-l", "kvloop.dev/shc=mc", "-o", "name")
    wait_for("the end of all", lambda: space.kubectl(*named).strip() == "", 120)


def test_a_file_store_waits_for_its_claim_and_keeps_pages(space: Namespace, tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()
    folder.chmod(0o777)
    cache = made(space, "files", "file", volume={"persistentVolumeClaim": "pages"}, capacity="64Mi")
    cache.wait(("False", "VolumeNotFound"))
    volume = f"{space.name}-pages"
    try:
        space.apply(json.dumps(_volume(volume, folder)))
        space.apply(json.dumps(_claim(volume)))
        cache.wait(READY)
        with page_client(cache) as client:
            keys = client.put(5)
            assert len(keys) == 5
        with page_client(cache, "another") as client:
            assert client.read(keys) == keys
        assert cache.status["capacityBytes"] == 64 << 20
    finally:
        space.kubectl("delete", "pvc", "pages", "--wait=false")
        space.kubectl("delete", "pv", volume, "--wait=false")


def test_what_is_wrong_with_a_cache_is_told_in_its_condition(space: Namespace) -> None:
    cache = made(space, "wrong", "mooncake", stores={}, masters={"replicas": 3})
    cache.wait(("False", "InvalidConfig"))
    (condition,) = cache.status["conditions"]
    assert (
        "spec.mooncake.masters.replicas: masters without highAvailability" in (condition["message"])
    )
    assert space.kubectl("get", "statefulset", "-l", "kvloop.dev/shc=wrong", "-o", "name") == ""


def test_stores_of_a_daemon_set_write_to_their_machines_ssd(
    space: Namespace, tmp_path: Path
) -> None:
    folder = tmp_path / "ssd"
    folder.mkdir()
    folder.chmod(0o777)
    stores = {"workload": "DaemonSet", "segmentSize": "64Mi", "ssd": {"hostPath": str(folder)}}
    cache = made(space, "each", "mooncake", stores=stores)
    cache.wait(READY)
    with page_client(cache) as client:
        keys = client.put(10)
        assert client.read(keys) == keys
    assert [one.name.startswith("each-store-") for one in folder.iterdir()] == [True]
    space.kubectl("delete", "shc", "each")


def test_a_memory_server_takes_pages(space: Namespace) -> None:
    resources = {"requests": {"cpu": "100m"}}
    store = {"segmentSize": "64Mi", "resources": resources}
    cache = made(space, "memory", "nixl", plugin="UCX", store=store)
    cache.wait(READY)
    with page_client(cache) as client:
        keys = client.put(5)
        assert len(keys) == 5
        assert client.read(keys) == keys
    space.kubectl("delete", "shc", "memory")


def _volume(name: str, folder: Path) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "by-hand",
            "hostPath": {"path": str(folder)},
        },
    }


def _claim(volume: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "pages"},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "by-hand",
            "volumeName": volume,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
