"""What is told of a SharedCache whose store is not run here, or is not Mooncake."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cache_worlds import CacheWorld
from shared_caches import cache_manifest, pod

from kvloop.operator.caches.probe import NetworkProbe
from kvloop.operator.controllers.base import Manifest


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
    world = CacheWorld(cache_manifest(backend, **part))
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
    world = CacheWorld(cache_manifest("nixl", **part))
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
    world = CacheWorld(cache_manifest("nixl", **part))
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
    world = CacheWorld(cache_manifest("file", volume={"persistentVolumeClaim": "pages"}))
    assert world.ready()[:2] == ("False", "VolumeNotFound")

    world.api.add(_claim("Pending"))
    assert world.ready()[:2] == ("Unknown", "VolumeNotBound")
    world.api.add(_claim("Lost"))
    assert world.ready()[:2] == ("False", "VolumeLost")
    world.api.add(_claim("Bound"))
    assert world.ready()[:2] == ("True", "Ready")
    assert world.look().status["capacityBytes"] == 1 << 30


def test_a_claim_of_one_machine_is_said_to_be_that() -> None:
    world = CacheWorld(cache_manifest("file", volume={"persistentVolumeClaim": "pages"}))
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
    world = CacheWorld(cache_manifest(backend, **part))

    assert world.ready()[:2] == ("Unknown", "NotObservable")


def test_a_dynamic_class_needs_its_secret() -> None:
    secret = {"name": "s", "key": "k"}
    world = CacheWorld(
        cache_manifest("dynamic", modulePath="m", className="C", configSecret=secret)
    )

    assert world.ready()[:2] == ("False", "SecretNotFound")


def test_a_memory_server_is_ready_once_it_listens() -> None:
    world = CacheWorld(cache_manifest("nixl", plugin="UCX", store={}))
    assert world.ready()[:2] == ("False", "ServerNotReady")

    world.api.add(pod("mc-nixl-0", "nixl-store"))
    assert world.ready()[:2] == ("True", "Ready")
    status = world.look().status
    assert (status["capacityBytes"], status["readyReplicas"]) == (4 << 30, 1)
    assert status["members"][0]["role"] == "server"


def test_a_janitor_that_failed_is_told_while_the_store_serves() -> None:
    volume = {"persistentVolumeClaim": "pages"}
    world = CacheWorld(cache_manifest("hf3fs", volume=volume, capacity="1Ti"))
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


def _zones() -> CacheWorld:
    parts = {"local": {"name": "near"}, "central": {"name": "far"}}
    world = CacheWorld(cache_manifest("zones", "z", zone="edge", **parts))
    for name in ("near", "far"):
        world.api.add(cache_manifest("file", name, volume={"persistentVolumeClaim": "c"}))
    return world


def _tell(world: CacheWorld, name: str, status: str) -> None:
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


def _claim(phase: str, mode: str = "ReadWriteMany") -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "pages", "namespace": "ns"},
        "spec": {"accessModes": [mode]},
        "status": {"phase": phase, "capacity": {"storage": "1Gi"}},
    }
