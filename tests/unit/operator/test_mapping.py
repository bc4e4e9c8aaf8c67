"""Which resources an event concerns."""

from __future__ import annotations

from typing import Any

import pytest

from kvloop.operator.names import labels
from kvloop.operator.runtime.mapping import References, key_of, owners, references
from kvloop.operator.runtime.queue import Key


def resource(kind: str, name: str, spec: Any) -> dict[str, Any]:
    """One of ours."""
    return {"kind": kind, "metadata": {"namespace": "n", "name": name}, "spec": spec}


CACHE = resource("SharedCache", "central", {"backend": "file"})
ZONES = resource(
    "SharedCache", "edge", {"zones": {"local": {"name": "l"}, "central": {"name": "central"}}}
)
CLUSTER = resource(
    "PDCluster",
    "c",
    {"sharedCacheRef": {"name": "edge"}, "attachableCaches": [{"name": "edge"}, {"name": "f"}]},
)
BENCHMARK = resource("MultiTurnBenchmark", "b", {"target": {"clusterRef": {"name": "c"}}})


def test_an_owned_object_concerns_its_owner() -> None:
    owner = {"apiVersion": "kvloop.dev/v1alpha1", "kind": "PDCluster", "name": "c", "uid": "1"}
    made = {"metadata": {"namespace": "n", "name": "x", "ownerReferences": [owner]}}
    assert owners(made) == {Key("PDCluster", "n", "c")}


@pytest.mark.parametrize(
    ("short", "kind"),
    [("shc", "SharedCache"), ("pdc", "PDCluster"), ("mtb", "MultiTurnBenchmark")],
)
def test_a_pod_concerns_the_resource_of_its_labels(short: str, kind: str) -> None:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "1"}
    marks = labels(kind=short, name="c", component="prefill")
    pod = {"metadata": {"namespace": "n", "name": "x", "ownerReferences": [owner], "labels": marks}}
    assert owners(pod) == {Key(kind, "n", "c")}


def test_a_stranger_concerns_nobody() -> None:
    assert owners({"metadata": {"namespace": "n", "name": "x"}}) == set()


def test_a_cluster_names_its_caches() -> None:
    assert references(CLUSTER) == {Key("SharedCache", "n", "edge"), Key("SharedCache", "n", "f")}


def test_zones_name_two_caches() -> None:
    assert references(ZONES) == {Key("SharedCache", "n", "l"), Key("SharedCache", "n", "central")}


def test_a_benchmark_names_its_cluster() -> None:
    assert references(BENCHMARK) == {Key("PDCluster", "n", "c")}


@pytest.mark.parametrize(
    "spec",
    [
        None,
        "text",
        {},
        {"sharedCacheRef": "text", "attachableCaches": "text", "target": 3, "zones": []},
        {"sharedCacheRef": {"name": 3}, "attachableCaches": [None, {}], "zones": {"local": 1}},
    ],
)
@pytest.mark.parametrize("kind", ["SharedCache", "PDCluster", "MultiTurnBenchmark", "Other"])
def test_whatever_is_in_a_spec_breaks_nothing(kind: str, spec: Any) -> None:
    assert references(resource(kind, "x", spec)) == set()


def test_a_cache_concerns_all_that_name_it_also_by_way_of_others() -> None:
    known = References()
    for one in (CACHE, ZONES, CLUSTER, BENCHMARK):
        known.see(one)
    assert known.to(key_of(CACHE)) == {key_of(ZONES), key_of(CLUSTER), key_of(BENCHMARK)}


def test_a_changed_reference_takes_the_place_of_the_old_one() -> None:
    known = References()
    known.see(CLUSTER)
    known.see(resource("PDCluster", "c", {"sharedCacheRef": {"name": "other"}}))
    assert known.to(Key("SharedCache", "n", "edge")) == set()
    assert known.to(Key("SharedCache", "n", "other")) == {key_of(CLUSTER)}


def test_a_resource_that_is_gone_concerns_nobody() -> None:
    known = References()
    known.see(CLUSTER)
    known.forget(key_of(CLUSTER))
    assert known.to(Key("SharedCache", "n", "edge")) == set()


def test_caches_that_name_each_other_end() -> None:
    known = References()
    for name, other in (("a", "b"), ("b", "a")):
        known.see(resource("SharedCache", name, {"zones": {"local": {"name": other}}}))
    assert known.to(Key("SharedCache", "n", "a")) == {Key("SharedCache", "n", "b")}
