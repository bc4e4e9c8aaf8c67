"""`kvloop uninstall` and the custom resources that are there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest

from kvloop.cli.install import removal
from kvloop.cli.install.kubernetes_api import (
    BENCHMARK,
    PART_OF,
    PD_CLUSTER,
    SHARED_CACHE,
    Cluster,
    Kind,
    Resource,
    operator_labels,
)
from kvloop.cli.install.removal import Fate, remove_resources, wait_for_operator
from kvloop.shared_cache.errors import ConfigError, KVLoopError

SOON = 60.0


def resource(name: str, namespace: str = "chat") -> Resource:
    return {"metadata": {"name": name, "namespace": namespace}}


class Shelf:
    """Resources and pods that go after some looks."""

    def __init__(self, there: Mapping[Kind, list[Resource] | None], looks: int = 2) -> None:
        self.there = dict(there)
        self.looks = looks
        self.deleted: list[tuple[str, str]] = []
        self.asked: list[tuple[str, ...]] = []

    def resources(self, kind: Kind, namespaces: Sequence[str]) -> list[Resource] | None:
        self.asked.append(tuple(namespaces))
        return self.there.get(kind, [])

    def delete(self, kind: Kind, one: Resource) -> None:
        self.deleted.append((kind.short, one["metadata"]["name"]))
        self.there[kind] = []

    def pods(self, namespaces: Sequence[str], labels: str) -> list[str]:
        assert labels in (PART_OF, operator_labels("loop"))
        self.looks -= 1
        return ["chat/demo-decode-0"] if self.looks > 0 else []


def full() -> Shelf:
    return Shelf(
        {
            SHARED_CACHE: [resource("cache")],
            PD_CLUSTER: [resource("demo")],
            BENCHMARK: [resource("run")],
        }
    )


def remove(shelf: Shelf, fate: Fate, seconds: float = SOON) -> None:
    remove_resources(cast(Cluster, shelf), fate, time.monotonic() + seconds)


def fate(wanted: Any, *, keep: bool = False, enabled: bool = True) -> Fate:
    values = {"crds": {"enabled": enabled, "keep": keep}, "operator": {"namespaces": ["chat"]}}
    return Fate.of(values, wanted)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "_LOOK_S", 0.01)


def test_resources_whose_fate_is_not_said_are_counted_and_nothing_is_touched() -> None:
    shelf = full()
    with pytest.raises(ConfigError) as said:
        remove(shelf, fate(None))
    assert "1 SharedCache, 1 PDCluster, 1 MultiTurnBenchmark" in str(said.value)
    assert "--resources delete" in str(said.value) and "--resources keep" in str(said.value)
    assert shelf.deleted == []


def test_loads_are_deleted_before_clusters_and_clusters_before_their_caches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shelf = full()
    remove(shelf, fate("delete"))
    assert shelf.deleted == [("mtb", "run"), ("pdc", "demo"), ("shc", "cache")]
    assert shelf.looks == 0
    assert "waiting for pod chat/demo-decode-0" in capsys.readouterr().err


def test_what_is_still_there_at_the_deadline_is_named() -> None:
    shelf = full()
    shelf.looks = 1_000_000
    with pytest.raises(KVLoopError, match="--timeout: still there: pod chat/demo-decode-0"):
        remove(shelf, fate("delete"), seconds=0.05)


def test_resources_are_not_kept_without_their_definitions() -> None:
    shelf = full()
    with pytest.raises(ConfigError, match=r"kvloop upgrade --set crds\.keep=true"):
        remove(shelf, fate("keep"))


@pytest.mark.parametrize("crds", [{"keep": True}, {"enabled": False}])
def test_resources_stay_where_their_definitions_do(crds: dict[str, bool]) -> None:
    shelf = full()
    remove(shelf, fate("keep", **crds))
    assert shelf.deleted == []


def test_nothing_has_to_be_said_where_there_is_nothing() -> None:
    shelf = Shelf({SHARED_CACHE: None, PD_CLUSTER: None, BENCHMARK: None})
    remove(shelf, fate(None))
    assert shelf.deleted == []


def test_a_release_that_takes_the_definitions_along_looks_at_all_namespaces() -> None:
    shelf = Shelf({})
    remove(shelf, fate(None))
    assert set(shelf.asked) == {()}
    shelf = Shelf({})
    remove(shelf, fate(None, keep=True))
    assert set(shelf.asked) == {("chat",)}


def test_uninstall_with_wait_ends_when_the_operators_pods_are_gone() -> None:
    shelf = Shelf({}, looks=3)
    wait_for_operator(cast(Cluster, shelf), "serving", "loop", time.monotonic() + SOON)
    assert shelf.looks == 0
