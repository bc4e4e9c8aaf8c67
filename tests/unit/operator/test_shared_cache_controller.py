"""What is told of a SharedCache, on an API in memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from memory_api import MemoryApi
from shared_caches import SETTINGS, cache_manifest, pod

from kvloop.operator.caches.probe import NetworkProbe
from kvloop.operator.caches.seen import MasterView
from kvloop.operator.controllers.base import Manifest, Result
from kvloop.operator.controllers.shared_cache import SharedCacheController
from kvloop.operator.errors import ApiError
from kvloop.operator.names import LEADER

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SEGMENT = 4 << 30
LEASE = {"replicas": 2, "highAvailability": "lease"}
STORES = {"replicas": 2}


@dataclass
class Network:
    """Who answers, by address."""

    masters: dict[str, MasterView] = field(default_factory=dict)
    listening: set[str] = field(default_factory=set)

    async def master(self, host: str, port: int) -> MasterView | None:
        return self.masters.get(host)

    async def why_unreachable(self, host: str, port: int) -> str:
        place = f"{host}:{port}"
        return "" if place in self.listening else f"{place}: Connection refused"


@dataclass
class World:
    """One SharedCache in a cluster."""

    manifest: Manifest
    api: MemoryApi = field(default_factory=MemoryApi)
    network: Network = field(default_factory=Network)

    def look(self) -> Result:
        """The status is kept, as the runtime does."""
        controller = SharedCacheController(SETTINGS, self.network, now=lambda: NOW)
        result = asyncio.run(controller.reconcile(self.manifest, self.api))
        self.manifest["status"] = dict(result.status)
        return result

    def ready(self) -> tuple[str, str, str]:
        """Status, reason and message after a look."""
        (condition,) = self.look().status["conditions"]
        return condition["status"], condition["reason"], condition["message"]

    def change(self, **part: Any) -> None:
        """A new generation of the spec."""
        metadata, spec = self.manifest["metadata"], self.manifest["spec"]
        metadata["generation"] += 1
        spec[spec["backend"]] = part

    def master(self, name: str, ip: str, *, leads: bool = False, capacity: int = 0) -> None:
        """A pod that is ready, and what it answers."""
        made = pod(name, "mooncake-master", podIP=ip)
        if leads:
            made["metadata"]["labels"][LEADER] = "true"
            view = MasterView(leads=True, capacity_bytes=capacity, used_bytes=capacity // 4)
            self.network.masters[ip] = view
        self.api.add(made)


def serving(**part: Any) -> World:
    """Two masters, two stores, all well."""
    world = World(cache_manifest("mooncake", **{"masters": LEASE, "stores": STORES, **part}))
    world.master("mc-master-0", "10.0.0.1", leads=True, capacity=2 * SEGMENT)
    world.master("mc-master-1", "10.0.0.2")
    for i in range(2):
        world.api.add(pod(f"mc-store-{i}", "mooncake-store"))
    return world


def _drop(world: World, name: str) -> None:
    world.api.objects = {
        what: one
        for what, one in world.api.objects.items()
        if (what.kind, what.name) != ("Pod", name)
    }


def test_a_store_that_serves_is_ready_with_its_figures() -> None:
    world = serving()
    status = world.look().status

    assert world.ready() == (
        "True",
        "Ready",
        "master mc-master-0 leads, 2 of 2 stores serve 8 GiB",
    )
    assert status["endpoint"] == "mc-master.ns.svc:50051"
    assert (status["capacityBytes"], status["usedBytes"]) == (2 * SEGMENT, SEGMENT // 2)
    assert (status["capacity"], status["used"]) == ("8 GiB", "2 GiB")
    assert (status["replicas"], status["readyReplicas"]) == (2, 2)
    assert "app.kubernetes.io/component=mooncake-store" in status["selector"]
    assert [(m["name"], m["role"], m["leader"]) for m in status["members"]] == [
        ("mc-master-0", "master", True),
        ("mc-master-1", "master", False),
        ("mc-store-0", "store", False),
        ("mc-store-1", "store", False),
    ]
    assert status["observedGeneration"] == 1


def test_without_a_leader_nothing_serves() -> None:
    world = serving()
    del world.api.objects[_id(world, "mc-master-0")]

    assert world.ready()[:2] == ("False", "NoLeader")
    assert "usedBytes" not in world.look().status


def test_without_masters_nothing_serves() -> None:
    world = serving()
    for name in ("mc-master-0", "mc-master-1"):
        _drop(world, name)

    assert world.ready() == (
        "False",
        "MasterNotReady",
        "no master serves; 0 of 2 masters were made",
    )


def test_masters_whose_image_cannot_be_pulled_say_so() -> None:
    world = World(cache_manifest("mooncake", stores={}))
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    world.api.add(
        pod("mc-master-0", "mooncake-master", ready=False, containerStatuses=[{"state": waiting}])
    )

    assert world.ready()[:2] == ("False", "ImagePullFailed")


def test_a_leader_that_does_not_answer_is_told() -> None:
    world = serving()
    world.network.masters.clear()

    assert world.ready()[:2] == ("False", "MasterNotReady")


def test_one_store_of_two_is_degraded() -> None:
    world = serving()
    _drop(world, "mc-store-1")

    assert world.ready() == (
        "True",
        "Degraded",
        "1 of 2 stores serve; the pages of others are misses",
    )
    assert world.look().status["readyReplicas"] == 1


def test_a_store_that_has_not_joined_is_not_counted() -> None:
    world = serving()
    world.network.masters["10.0.0.1"] = MasterView(leads=True, capacity_bytes=SEGMENT, used_bytes=0)

    assert world.ready()[:2] == ("True", "Degraded")


def test_no_store_at_all_is_not_ready() -> None:
    world = serving()
    for name in ("mc-store-0", "mc-store-1"):
        _drop(world, name)

    assert world.ready() == ("False", "StoresNotReady", "none of 2 stores serves")


def test_stores_that_no_master_knows_are_not_ready() -> None:
    world = serving()
    world.network.masters["10.0.0.1"] = MasterView(leads=True, capacity_bytes=0, used_bytes=0)

    assert world.ready()[:2] == ("False", "StoresNotReady")


def test_a_store_scaled_to_nothing_keeps_nothing() -> None:
    world = serving(stores={"replicas": 0})

    status, reason, message = world.ready()
    assert (status, reason) == ("False", "StoresNotReady")
    assert "scale it up" in message


def test_a_stand_by_that_is_gone_is_degraded() -> None:
    world = serving()
    _drop(world, "mc-master-1")

    assert world.ready()[:2] == ("True", "Degraded")


def test_what_is_wrong_is_told_whole_and_nothing_is_made() -> None:
    world = World(
        cache_manifest("mooncake", stores={"segmentSize": "1Mi"}, masters={"replicas": 2})
    )

    status, reason, message = world.ready()
    assert (status, reason) == ("False", "InvalidConfig")
    assert "spec.mooncake.masters.replicas" in message
    assert "spec.mooncake.stores.segmentSize" in message
    assert world.api.calls == []


def test_fields_that_the_operator_sets_are_told_as_wrong() -> None:
    world = World(cache_manifest("mooncake", stores={}, extraConfig={"protocol": "rdma"}))

    assert world.ready()[2].startswith("spec.mooncake.extraConfig.protocol")


def test_what_the_api_server_refuses_for_good_is_told() -> None:
    world = serving()
    world.api = _Refusing(objects=world.api.objects)

    status, reason, message = world.ready()
    assert (status, reason) == ("False", "Refused")
    assert "StatefulSet mc-store: field is immutable" in message


def test_what_the_api_server_could_not_do_is_tried_again() -> None:
    world = serving()
    world.api = _Refusing(objects=world.api.objects, status=500)

    with pytest.raises(ApiError):
        world.look()


def test_what_a_new_spec_does_not_run_is_removed() -> None:
    world = serving()
    world.look()
    world.change(masters=LEASE, stores={"workload": "DaemonSet"})
    world.look()

    assert [m["metadata"]["name"] for m in world.api.of_kind("DaemonSet")] == ["mc-store"]
    assert [m["metadata"]["name"] for m in world.api.of_kind("StatefulSet")] == ["mc-master"]


def test_what_is_not_the_caches_is_never_removed() -> None:
    world = serving()
    other = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "mc-store", "namespace": "ns"},
    }
    world.api.add(other)
    world.look()

    assert len(world.api.of_kind("DaemonSet")) == 1


def test_a_second_look_changes_nothing() -> None:
    world = serving()
    world.look()
    num_calls = len(world.api.calls)
    result = world.look()

    assert len(world.api.calls) == num_calls
    assert list(result.events) == []


def test_each_change_is_an_event() -> None:
    world = serving()
    (first,) = world.look().events
    _drop(world, "mc-store-1")
    (second,) = world.look().events

    assert (first.type, first.reason) == ("Normal", "Ready")
    assert (second.type, second.reason) == ("Warning", "Degraded")


def test_what_is_not_ready_is_looked_at_more_often() -> None:
    world = serving()
    calm = world.look().requeue_s
    _drop(world, "mc-store-1")

    assert world.look().requeue_s < calm


def test_the_time_of_a_condition_stays_while_its_status_does() -> None:
    world = serving()
    world.look()
    world.manifest["status"]["conditions"][0]["lastTransitionTime"] = "2020-01-01T00:00:00Z"
    _drop(world, "mc-store-1")

    (condition,) = world.look().status["conditions"]
    assert condition["lastTransitionTime"] == "2020-01-01T00:00:00Z"


def test_masters_in_etcd_say_themselves_who_leads() -> None:
    masters = {"replicas": 2, "highAvailability": "etcd", "etcdEndpoints": ["e:2379"]}
    world = serving(masters=masters)
    views = {"10.0.0.1": False, "10.0.0.2": True}
    for ip, leads in views.items():
        world.network.masters[ip] = MasterView(
            leads=leads, capacity_bytes=2 * SEGMENT, used_bytes=0
        )

    assert "master mc-master-1 leads" in world.ready()[2]
    world.network.masters["10.0.0.2"] = replace(world.network.masters["10.0.0.2"], leads=False)
    assert world.ready()[1:] == (
        "NoLeader",
        "no master leads; one of those that stand by will",
    )


@pytest.mark.parametrize(
    ("backend", "part", "place"),
    [
        ("mooncake", {"external": "m0:1,m1:1"}, "m1:1"),
        ("nixl", {"plugin": "UCX", "server": "s:2"}, "s:2"),
    ],
)
def test_a_store_elsewhere_is_reached_or_not(
    backend: str, part: dict[str, Any], place: str
) -> None:
    world = World(cache_manifest(backend, **part))
    assert world.ready()[:2] == ("False", "Unreachable")

    world.network.listening.add(place)
    assert world.ready()[:2] == ("True", "Ready")


def test_a_bucket_needs_its_keys_and_an_endpoint_that_answers() -> None:
    part = {
        "plugin": "OBJ",
        "bucket": "pages",
        "endpoint": "https://s3.example",
        "credentials": {"name": "s3"},
    }
    world = World(cache_manifest("nixl", **part))
    assert world.ready()[1:] == ("SecretNotFound", "there is no Secret s3 in this namespace")

    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3", "namespace": "ns"}}
    world.api.add({**secret, "data": {"access_key": "QQ=="}})
    assert world.ready()[1:] == ("SecretNotFound", "Secret s3 has no key secret_key")

    world.api.add({**secret, "data": {"access_key": "QQ==", "secret_key": "QQ=="}})
    assert world.ready()[1] == "Unreachable"
    world.network.listening.add("s3.example:443")
    assert world.ready()[1] == "Ready"


@pytest.mark.parametrize("endpoint", ["http://s3:99999", "http://s3:x", "https://:1", "http://["])
def test_an_endpoint_that_names_no_place_is_told_by_its_field(endpoint: str) -> None:
    part = {"plugin": "OBJ", "bucket": "pages", "endpoint": endpoint, "credentials": {"name": "s3"}}
    world = World(cache_manifest("nixl", **part))
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s3", "namespace": "ns"}}
    world.api.add({**secret, "data": {"access_key": "QQ==", "secret_key": "QQ=="}})

    status, reason, message = world.ready()
    assert (status, reason) == ("False", "InvalidConfig")
    assert message.startswith("spec.nixl.endpoint: ") and endpoint in message


@pytest.mark.parametrize("place", ["127.0.0.1:99999", "a..b:80", f"{'a' * 70}:80"])
def test_a_place_that_is_none_is_unreachable_in_words(place: str) -> None:
    host, _, port = place.rpartition(":")
    words = asyncio.run(NetworkProbe(2.0).why_unreachable(host, int(port)))
    assert words.startswith(f"{place}: ") and len(words) > len(place) + 5


def test_a_claim_must_be_there_and_bound() -> None:
    world = World(cache_manifest("file", volume={"persistentVolumeClaim": "pages"}))
    assert world.ready()[:2] == ("False", "VolumeNotFound")

    world.api.add(_claim("Pending"))
    assert world.ready()[:2] == ("Unknown", "VolumeNotBound")
    world.api.add(_claim("Lost"))
    assert world.ready()[:2] == ("False", "VolumeLost")
    world.api.add(_claim("Bound"))
    assert world.ready()[:2] == ("True", "Ready")
    assert world.look().status["capacityBytes"] == 1 << 30


def test_a_claim_of_one_machine_is_said_to_be_that() -> None:
    world = World(cache_manifest("file", volume={"persistentVolumeClaim": "pages"}))
    world.api.add(_claim("Bound", "ReadWriteOnce"))

    assert "without ReadWriteMany" in world.ready()[2]


@pytest.mark.parametrize(
    ("backend", "part"),
    [
        ("file", {"volume": {"hostPath": "/mnt/nfs"}}),
        ("hf3fs", {"fuse": {"podLabels": {"a": "b"}}}),
        ("dynamic", {"modulePath": "m", "className": "C"}),
    ],
)
def test_what_cannot_be_seen_is_unknown(backend: str, part: dict[str, Any]) -> None:
    world = World(cache_manifest(backend, **part))

    assert world.ready()[:2] == ("Unknown", "NotObservable")


def test_a_dynamic_class_needs_its_secret() -> None:
    secret = {"name": "s", "key": "k"}
    world = World(cache_manifest("dynamic", modulePath="m", className="C", configSecret=secret))

    assert world.ready()[:2] == ("False", "SecretNotFound")


def test_a_memory_server_is_ready_once_it_listens() -> None:
    world = World(cache_manifest("nixl", plugin="UCX", store={}))
    assert world.ready()[:2] == ("False", "ServerNotReady")

    world.api.add(pod("mc-nixl-0", "nixl-store"))
    assert world.ready()[:2] == ("True", "Ready")
    status = world.look().status
    assert (status["capacityBytes"], status["readyReplicas"]) == (4 << 30, 1)
    assert status["members"][0]["role"] == "server"


def test_a_janitor_that_failed_is_told_while_the_store_serves() -> None:
    volume = {"persistentVolumeClaim": "pages"}
    world = World(cache_manifest("hf3fs", volume=volume, capacity="1Ti"))
    world.api.add(_claim("Bound"))
    labels = {"kvloop.dev/shc": "mc", "app.kubernetes.io/component": "janitor"}
    for day, outcome in ((1, "Complete"), (2, "Failed")):
        world.api.add(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {
                    "name": f"mc-janitor-{day}",
                    "namespace": "ns",
                    "labels": labels,
                    "creationTimestamp": f"2026-01-0{day}T00:00:00Z",
                },
                "status": {"conditions": [{"type": outcome, "status": "True", "message": "late"}]},
            }
        )

    status, reason, message = world.ready()
    assert (status, reason) == ("True", "JanitorFailed")
    assert "kubectl logs job/mc-janitor-2" in message


def _zones() -> World:
    parts = {"local": {"name": "near"}, "central": {"name": "far"}}
    world = World(cache_manifest("zones", "z", zone="edge", **parts))
    for name in ("near", "far"):
        world.api.add(cache_manifest("file", name, volume={"persistentVolumeClaim": "c"}))
    return world


def _tell(world: World, name: str, status: str) -> None:
    for what, one in world.api.objects.items():
        if what.name == name:
            told = {"type": "Ready", "status": status, "reason": "R", "message": "m"}
            one["status"] = {"conditions": [{**told, "lastTransitionTime": "t"}]}


@pytest.mark.parametrize(
    ("near", "far", "wanted"),
    [
        ("True", "True", ("True", "Ready")),
        ("True", "False", ("True", "Degraded")),
        ("False", "True", ("True", "Degraded")),
        ("False", "False", ("False", "CacheNotReady")),
        ("Unknown", "True", ("Unknown", "NotObservable")),
        ("Unknown", "False", ("Unknown", "Degraded")),
    ],
)
def test_zones_are_what_their_parts_are(near: str, far: str, wanted: tuple[str, str]) -> None:
    world = _zones()
    _tell(world, "near", near)
    _tell(world, "far", far)

    assert world.ready()[:2] == wanted


def test_zones_without_a_part_are_told() -> None:
    world = _zones()
    world.api.objects = {w: o for w, o in world.api.objects.items() if w.name != "far"}

    assert world.ready()[:2] == ("False", "InvalidConfig")
    assert "there is no SharedCache 'far'" in world.ready()[2]


@dataclass(slots=True)
class _Refusing(MemoryApi):
    status: int = 422

    async def apply(self, manifest: Manifest) -> Manifest:
        if (manifest["kind"], manifest["metadata"]["name"]) == ("StatefulSet", "mc-store"):
            raise ApiError("field is immutable", status=self.status)
        return await MemoryApi.apply(self, manifest)


def _id(world: World, name: str) -> Any:
    return next(what for what in world.api.objects if what.name == name and what.kind == "Pod")


def _claim(phase: str, mode: str = "ReadWriteMany") -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "pages", "namespace": "ns"},
        "spec": {"accessModes": [mode]},
        "status": {"phase": phase, "capacity": {"storage": "1Gi"}},
    }
