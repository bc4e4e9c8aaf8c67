"""What is told of a SharedCache, on an API in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from cache_worlds import LEASE, SEGMENT, CacheWorld, serving
from memory_api import MemoryApi
from shared_caches import cache_manifest, pod

from kvloop.operator.caches.seen import MasterView
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.errors import ApiError


def _drop(world: CacheWorld, name: str) -> None:
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
    world = CacheWorld(cache_manifest("mooncake", stores={}))
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
    world = CacheWorld(
        cache_manifest("mooncake", stores={"segmentSize": "1Mi"}, masters={"replicas": 2})
    )

    status, reason, message = world.ready()
    assert (status, reason) == ("False", "InvalidConfig")
    assert "spec.mooncake.masters.replicas" in message
    assert "spec.mooncake.stores.segmentSize" in message
    assert world.api.calls == []


def test_fields_that_the_operator_sets_are_told_as_wrong() -> None:
    world = CacheWorld(cache_manifest("mooncake", stores={}, extraConfig={"protocol": "rdma"}))

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


@dataclass(slots=True)
class _Refusing(MemoryApi):
    status: int = 422

    async def apply(self, manifest: Manifest) -> Manifest:
        if (manifest["kind"], manifest["metadata"]["name"]) == ("StatefulSet", "mc-store"):
            raise ApiError("field is immutable", status=self.status)
        return await MemoryApi.apply(self, manifest)


def _id(world: CacheWorld, name: str) -> Any:
    return next(what for what in world.api.objects if what.name == name and what.kind == "Pod")
