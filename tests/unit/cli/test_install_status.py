"""What `kvloop status` shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvloop.cli.install.kubernetes_api import (
    BENCHMARK,
    PD_CLUSTER,
    SHARED_CACHE,
    Cluster,
    Kind,
    Resource,
)
from kvloop.cli.install.seen import Operator, Seen, look
from kvloop.cli.install.tables import show

RELEASE = {
    "name": "loop",
    "namespace": "serving",
    "status": "deployed",
    "revision": 3,
    "chart_name": "kvloop",
    "chart_version": "0.1.0",
    "app_version": "0.1.0",
}


def cache(ready: str = "True", reason: str = "Ready") -> Resource:
    return {
        "metadata": {"name": "store", "namespace": "chat"},
        "spec": {"backend": "mooncake"},
        "status": {
            "used": "1Gi",
            "capacity": "4Gi",
            "conditions": [{"type": "Ready", "status": ready, "reason": reason, "message": "m"}],
        },
    }


def cluster(ready: str = "True", **conditions: str) -> Resource:
    told = {"Ready": ready} | conditions
    return {
        "metadata": {"name": "demo", "namespace": "chat"},
        "spec": {},
        "status": {
            "prefill": {"ready": 1, "replicas": 2},
            "decode": {"ready": 3, "replicas": 3},
            "router": {"ready": 1, "replicas": 1},
            "attachedCache": "store",
            "conditions": [
                {"type": kind, "status": status, "reason": "R", "message": "pods are pending"}
                for kind, status in told.items()
            ],
        },
    }


def benchmark() -> Resource:
    return {
        "metadata": {"name": "run", "namespace": "chat"},
        "spec": {},
        "status": {
            "phase": "Succeeded",
            "ttftWithReuse": "40/60",
            "ttftWithoutReuse": "90/120",
            "speedup": "2.3x",
            "hit": "80 %",
        },
    }


def seen(**changes: Any) -> Seen:
    parts: dict[str, Any] = {
        "release": RELEASE,
        "operator": Operator(name="loop-operator", image="op:1", replicas=2, ready=1),
        "resources": {
            SHARED_CACHE: [cache()],
            PD_CLUSTER: [cluster(ReuseVerified="Unknown")],
            BENCHMARK: [benchmark()],
        },
    } | changes
    return Seen(**parts)


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the terminal is."""
    monkeypatch.setenv("COLUMNS", "200")


def shown(what: Seen, capsys: pytest.CaptureFixture[str]) -> str:
    show(what, as_json=False)
    return capsys.readouterr().out


def test_release_and_operator_are_on_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(seen(), capsys)
    assert "release loop in namespace serving: deployed, revision 3, chart kvloop-0.1.0" in out
    assert "operator loop-operator: 1 of 2 pods ready, image op:1" in out


def test_a_cluster_shows_its_pods_its_cache_its_loop_and_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = shown(seen(), capsys)
    for text in ("1/2 3/3 1/1", "store", "Unknown", "pods are pending"):
        assert text in out


def test_a_cache_shows_its_backend_and_what_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(seen(), capsys)
    assert "mooncake" in out and "1Gi of 4Gi" in out


def test_a_benchmark_shows_its_result(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(seen(), capsys)
    for text in ("Succeeded", "40/60", "90/120", "2.3x", "80 %"):
        assert text in out


def test_missing_definitions_and_empty_lists_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    what = seen(resources={SHARED_CACHE: None, PD_CLUSTER: [], BENCHMARK: []}, operator=None)
    out = shown(what, capsys)
    assert "SharedCache: its definition is not installed" in out
    assert "PDCluster: none" in out
    assert "operator: there is no Deployment of it" in out


def test_json_holds_the_whole_status(capsys: pytest.CaptureFixture[str]) -> None:
    show(seen(), as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["release"]["revision"] == 3
    assert told["operator"]["ready"] == 1
    assert told["pdclusters"][0]["status"]["attachedCache"] == "store"
    assert told["multiturnbenchmarks"][0]["status"]["hit"] == "80 %"
    assert told["is_ready"] is True


NOT_READY: dict[str, dict[str, Any]] = {
    "a release that failed": {"release": RELEASE | {"status": "failed"}},
    "no operator": {"operator": None},
    "no pod of it": {"operator": Operator(name="o", image="i", replicas=1, ready=0)},
    "no definitions": {"resources": {SHARED_CACHE: None, PD_CLUSTER: [], BENCHMARK: []}},
    "a cache": {"resources": {SHARED_CACHE: [cache("False")], PD_CLUSTER: [], BENCHMARK: []}},
    "a cluster": {"resources": {SHARED_CACHE: [], PD_CLUSTER: [cluster("Unknown")]}},
    "a cluster not looked at yet": {
        "resources": {SHARED_CACHE: [], PD_CLUSTER: [{"metadata": {}, "spec": {}}]}
    },
    "a cluster whose changed spec was not looked at yet": {
        "resources": {
            SHARED_CACHE: [],
            PD_CLUSTER: [cluster() | {"metadata": {"name": "demo", "generation": 1}}],
            BENCHMARK: [],
        }
    },
}


@pytest.mark.parametrize("why", NOT_READY)
def test_it_is_not_ready_while_one_part_is_not(why: str) -> None:
    assert not seen(**NOT_READY[why]).is_ready


def test_it_is_ready_with_all_parts_whatever_benchmarks_do() -> None:
    waits = {
        "metadata": {"name": "r", "namespace": "n"},
        "spec": {},
        "status": {"phase": "Pending"},
    }
    resources = {SHARED_CACHE: [cache()], PD_CLUSTER: [cluster()], BENCHMARK: [waits]}
    assert seen(resources=resources).is_ready


class Api:
    """One operator, and resources by namespace."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def deployments(self, namespace: str, labels: str) -> list[Any]:
        assert (namespace, labels) == (
            "serving",
            "app.kubernetes.io/instance=loop,app.kubernetes.io/component=operator",
        )
        container = SimpleNamespace(image="op:1")
        template = SimpleNamespace(spec=SimpleNamespace(containers=[container]))
        return [
            SimpleNamespace(
                metadata=SimpleNamespace(name="loop-operator"),
                spec=SimpleNamespace(replicas=2, template=template),
                status=SimpleNamespace(ready_replicas=None),
            )
        ]

    def resources(self, kind: Kind, namespaces: Sequence[str]) -> list[Resource]:
        self.asked.append(tuple(namespaces))
        return []


def test_a_look_asks_for_the_namespaces_that_the_operator_watches() -> None:
    api = Api()
    what = look(cast(Cluster, api), RELEASE, {"operator": {"namespaces": ["chat", "agents"]}})
    assert set(api.asked) == {("chat", "agents")}
    assert what.operator == Operator(name="loop-operator", image="op:1", replicas=2, ready=0)
