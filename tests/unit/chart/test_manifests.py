"""What the chart makes of values from minimal to full is valid on old and new clusters."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import helm_python
import kubernetes_validate
import pytest
from chart import CHART, MONITORING, NEW, OLD, Manifest, manifests, of_kind, only, rendered
from chart_values import FULL, MINIMAL, STORES, cases, over
from kubernetes_versions import VERSIONS

CASES = cases()
FOREIGN = ("monitoring.coreos.com/v1",)
"""No part of Kubernetes' own schemas."""


def check(found: Sequence[Manifest], version: str) -> None:
    """All of Kubernetes' own kinds, strictly."""
    for one in found:
        if one["apiVersion"] not in FOREIGN:
            check_once(json.dumps(one, sort_keys=True), version)


@functools.cache
def case(name: str) -> list[Manifest]:
    """Without the definitions where the case says nothing of them: they are most of the text."""
    is_of_definitions = "crds." in name or name in ("default", "full")
    values = CASES[name] if is_of_definitions else over(CASES[name], {"crds": {"enabled": False}})
    return manifests(values, apis=(*NEW, MONITORING))


@functools.cache
def check_once(manifest: str, version: str) -> None:
    """Most objects are alike in most cases."""
    kubernetes_validate.validate(json.loads(manifest), version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_for_every_version_from_1_27_to_1_37(version: str) -> None:
    check(manifests(FULL, version=f"v{version}.0", apis=(*NEW, MONITORING)), version)
    check(manifests({}, version=f"v{version}.0"), version)


@pytest.mark.parametrize("name", CASES)
def test_every_switch_turned_alone_or_in_the_full_values_makes_valid_objects(name: str) -> None:
    check(case(name), "1.27")
    check(case(name), "1.37")


@pytest.mark.parametrize("name", CASES)
def test_helm_lint_finds_nothing_in_any_of_them(name: str) -> None:
    report = helm_python.lint(CHART, CASES[name], strict=True, kube_version="v1.27.0")
    assert report["messages"] == [] and report["errors"] == []


@pytest.mark.parametrize("name", CASES)
def test_no_two_objects_of_a_release_have_one_name(name: str) -> None:
    keys = [
        (one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"])
        for one in case(name)
    ]
    assert len(set(keys)) == len(keys)


def test_a_switch_that_is_off_leaves_its_object_out() -> None:
    kinds = {one["kind"] for one in manifests(MINIMAL, apis=(*NEW, MONITORING))}
    assert kinds == {"Deployment", "Lease"}


def test_the_full_values_make_every_object_that_the_chart_has() -> None:
    kinds = {one["kind"] for one in manifests(FULL, apis=(*NEW, MONITORING))}
    assert kinds == {
        *("ConfigMap", "ClusterRole", "CustomResourceDefinition", "Deployment", "Lease"),
        *("NetworkPolicy", "Pod", "PodDisruptionBudget", "PodMonitor", "PriorityClass"),
        *("PrometheusRule", "Role", "RoleBinding", "Service", "ServiceAccount", "ServiceMonitor"),
    }


@pytest.mark.parametrize(
    ("version", "apis", "wanted"),
    [("v1.20.2", OLD, "policy/v1beta1"), ("v1.37.0", NEW, "policy/v1")],
)
def test_the_budget_has_the_version_that_the_cluster_serves(
    version: str, apis: tuple[str, ...], wanted: str
) -> None:
    found = manifests({"operator": {"replicas": 2}}, version=version, apis=apis)
    assert only(found, "PodDisruptionBudget")["apiVersion"] == wanted


def test_stores_elsewhere_can_be_let_through_the_operators_policy() -> None:
    def reached(values: dict[str, Any]) -> list[Any]:
        policy = only(manifests({"networkPolicy": {"operator": values}}), "NetworkPolicy")
        return [rule["to"] for rule in policy["spec"]["egress"] if "to" in rule]

    assert len(reached({"enabled": True})) == 1
    assert reached({"enabled": True, "to": STORES})[1] == STORES


def test_one_pod_gets_no_budget_that_would_hold_up_a_drain() -> None:
    assert not of_kind(manifests({"operator": {"replicas": 1}}), "PodDisruptionBudget")


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PodMonitor", "PrometheusRule"])
def test_monitors_are_left_out_and_told_of_where_the_cluster_knows_none(kind: str) -> None:
    assert not of_kind(manifests(FULL), kind)
    assert of_kind(manifests(FULL, apis=(*NEW, MONITORING)), kind)
    assert "no ServiceMonitor, PodMonitor or" in rendered(FULL)["NOTES.txt"]


def test_the_chart_says_which_clusters_it_is_for() -> None:
    with helm_python.Chart.load(CHART) as chart:
        assert chart.metadata["kubeVersion"] == ">=1.20.0-0"


def operator(values: dict[str, Any]) -> Manifest:
    """The operator's container."""
    deployment = only(manifests(values), "Deployment")
    container: Manifest = deployment["spec"]["template"]["spec"]["containers"][0]
    return container


def test_an_image_by_digest_wins_over_its_tag() -> None:
    digest = "sha256:" + "ab" * 32
    image = {"repository": "registry/op", "tag": "v1", "digest": digest}
    assert operator({"image": {"operator": image}})["image"] == f"registry/op@{digest}"


def test_an_image_without_tag_has_the_charts_app_version() -> None:
    with helm_python.Chart.load(CHART) as chart:
        version = chart.metadata["appVersion"]
    assert operator({})["image"] == f"localhost/kvloop-operator:{version}"
    assert f"--node-image=localhost/kvloop-node:{version}" in operator({})["args"]


def test_the_operator_understands_the_flags_that_it_is_given() -> None:
    from kvloop.operator.__main__ import parser, settings_of

    settings = settings_of(parser().parse_args(operator(FULL)["args"]))
    assert settings.namespaces == ("chat", "agents")
    assert settings.node_image == "registry.example.com:5000/kvloop-node:v1"
    assert settings.operator_image.startswith("registry.example.com:5000/kvloop-operator@sha256:")
    assert settings.own_namespace == "kvloop-system"
    assert settings.port == 9090
    assert settings.resync_s == 5


def test_probes_and_service_lead_to_the_port_that_the_operator_serves() -> None:
    container = operator(FULL)
    assert container["ports"] == [{"name": "http", "containerPort": 9090, "protocol": "TCP"}]
    paths = {
        probe: container[probe]["httpGet"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")
    }
    assert paths == {
        "startupProbe": {"path": "/healthz", "port": "http"},
        "readinessProbe": {"path": "/readyz", "port": "http"},
        "livenessProbe": {"path": "/healthz", "port": "http"},
    }
    assert only(manifests(FULL), "Service")["spec"]["ports"][0]["port"] == 9090


def test_selectors_pick_the_operators_pods_and_not_those_of_helm_test() -> None:
    found = manifests(FULL, apis=(*NEW, MONITORING))
    pod = only(found, "Deployment")["spec"]["template"]["metadata"]["labels"]
    test = only(found, "Pod")["metadata"]["labels"]
    for selector in (
        only(found, "Deployment")["spec"]["selector"]["matchLabels"],
        only(found, "Service")["spec"]["selector"],
        only(found, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= pod.items()
        assert not selector.items() <= test.items()


def test_a_budget_of_one_pod_more_needs_no_other_value() -> None:
    budget = only(manifests({"operator": {"replicas": 2}}), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


def test_the_operators_lease_is_the_one_that_it_looks_for() -> None:
    from kvloop.operator.rbac import LEASE

    assert only(manifests({}), "Lease")["metadata"]["name"] == LEASE


def test_priorities_are_written_in_digits() -> None:
    found = only(manifests({"priorityClass": {"create": True}}), "PriorityClass")
    assert found["value"] == 1_000_000 and isinstance(found["value"], int)
