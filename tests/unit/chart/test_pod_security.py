"""Pods run in namespaces with the restricted level unless a field asks for more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import yaml
from chart import CHART, Manifest, manifests, pod_specs
from chart_values import FULL
from pod_security import containers, violations

from kvloop.operator.build.benchmark import build_job
from kvloop.operator.build.pd_cluster import Keys, build_pd_cluster
from kvloop.operator.build.shared_cache import build_shared_cache
from kvloop.operator.connect import connect
from kvloop.operator.parse import parse_benchmark, parse_pd_cluster, parse_shared_cache
from kvloop.operator.settings import Settings

SETTINGS = Settings(node_image="kvloop-node:1")
KEYS = Keys(admin_key="a", node_secret="s")
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
ASKS_FOR_MORE = {
    "3fs.yaml": "hostPath: /mnt/3fs/stage",
    "mooncake-rdma.yaml": "hostPath: /mnt/nvme/mooncake",
}
"""Examples with a field whose description says that it needs the privileged level."""


def made(documents: Sequence[Manifest]) -> list[Manifest]:
    """What the operator makes of an example."""
    named = [
        one | {"metadata": {"namespace": "ns", "uid": "u"} | one["metadata"]} for one in documents
    ]
    kinds: dict[str, list[Manifest]] = {}
    for one in named:
        kinds.setdefault(one["kind"], []).append(one)
    caches = [parse_shared_cache(one) for one in kinds.get("SharedCache", [])]
    by_name = {cache.metadata.name: cache for cache in caches}
    connections = {name: connect(cache, by_name) for name, cache in by_name.items()}
    clusters = [parse_pd_cluster(one) for one in kinds.get("PDCluster", [])]
    loads = [parse_benchmark(one) for one in kinds.get("MultiTurnBenchmark", [])]
    return [
        *(m for cache in caches for m in build_shared_cache(cache, SETTINGS)),
        *(m for one in clusters for m in build_pd_cluster(one, connections, KEYS, SETTINGS)),
        *(build_job(one, "http://demo:8000", SETTINGS) for one in loads),
    ]


def of_example(name: str) -> list[Manifest]:
    """The documents of one file."""
    return list(yaml.safe_load_all((CHART / "examples" / name).read_text()))


@pytest.mark.parametrize("values", [{}, FULL], ids=["default", "full"])
def test_the_charts_own_pods_pass_the_restricted_level(values: dict[str, Any]) -> None:
    found = pod_specs(manifests(values))
    assert len(found) == 2
    assert {name: violations(spec) for name, spec in found if violations(spec)} == {}


@pytest.mark.parametrize("values", [{}, FULL], ids=["default", "full"])
def test_the_charts_containers_write_to_no_root_and_have_requests_and_limits(
    values: dict[str, Any],
) -> None:
    for _, spec in pod_specs(manifests(values)):
        for container in containers(spec):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["resources"]["requests"] and container["resources"]["limits"]


@pytest.mark.parametrize("example", [e.name for e in EXAMPLES if e.name not in ASKS_FOR_MORE])
def test_what_the_operator_makes_of_an_example_passes_the_restricted_level(example: str) -> None:
    found = pod_specs(made(of_example(example)))
    assert found
    assert {name: violations(spec) for name, spec in found if violations(spec)} == {}


@pytest.mark.parametrize("example", ASKS_FOR_MORE)
def test_only_the_field_that_asks_for_more_keeps_an_example_from_the_level(example: str) -> None:
    assert ASKS_FOR_MORE[example] in (CHART / "examples" / example).read_text()
    told = {what for _, spec in pod_specs(made(of_example(example))) for what in violations(spec)}
    assert told and all("is a hostPath" in what for what in told)


@pytest.mark.parametrize("example", [e.name for e in EXAMPLES if e.name != "sglang.yaml"])
def test_pods_of_an_example_write_to_no_root_and_get_no_token_that_they_do_not_use(
    example: str,
) -> None:
    # SGLang's image is not ours: what it compiles goes where it likes.
    for name, spec in pod_specs(made(of_example(example))):
        for container in containers(spec):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
        if name.split("/")[0] == "Deployment":
            assert spec.get("automountServiceAccountToken") is False, name


BAD: list[tuple[dict[str, Any], str]] = [
    ({"hostNetwork": True}, "hostNetwork"),
    ({"hostPID": True}, "hostPID"),
    ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "volume v is a hostPath"),
    ({"securityContext": {"runAsUser": 0}}, "runAsUser of the pod is 0"),
    ({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}}, "sysctl kernel.msgmax"),
]
BAD_CONTAINER: list[tuple[dict[str, Any], str]] = [
    ({"privileged": True}, "c: privileged"),
    ({"allowPrivilegeEscalation": True}, "c: allowPrivilegeEscalation is not false"),
    ({"runAsNonRoot": False}, "c: runAsNonRoot is not true"),
    ({"seccompProfile": {"type": "Unconfined"}}, "c: seccompProfile is not RuntimeDefault"),
    ({"capabilities": {"drop": ["NET_RAW"]}}, "c: capabilities ALL are not dropped"),
    (
        {"capabilities": {"drop": ["ALL"], "add": ["IPC_LOCK"]}},
        "c: capability IPC_LOCK is added",
    ),
    ({"procMount": "Unmasked"}, "c: procMount"),
]
GOOD = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
    "capabilities": {"drop": ["ALL"]},
}


def pod(**more: Any) -> dict[str, Any]:
    """One that passes, and what is changed of it."""
    return {"containers": [{"name": "c", "securityContext": GOOD}]} | more


def test_the_check_lets_a_restricted_pod_pass() -> None:
    assert violations(pod()) == []


@pytest.mark.parametrize(("more", "told"), BAD, ids=[told for _, told in BAD])
def test_the_check_finds_what_a_pod_may_not(more: dict[str, Any], told: str) -> None:
    assert violations(pod(**more)) == [told]


@pytest.mark.parametrize(("more", "told"), BAD_CONTAINER, ids=[told for _, told in BAD_CONTAINER])
@pytest.mark.parametrize("where", ["containers", "initContainers"])
def test_the_check_finds_what_a_container_may_not(
    more: dict[str, Any], told: str, where: str
) -> None:
    bad = {"name": "c", "securityContext": GOOD | more}
    assert violations(pod(**{where: [bad]})) == [told]
