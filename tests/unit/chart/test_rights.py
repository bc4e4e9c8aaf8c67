"""The operator may do what its code says, where it watches, and nothing more."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from chart import CHART, NAMESPACE, Manifest, manifests, of_kind
from chart_values import FULL

from kvloop.operator import rbac

RULES = yaml.safe_load((CHART / "files" / "rbac-rules.yaml").read_text())
CUSTOM = {"sharedcaches", "pdclusters", "multiturnbenchmarks"}


def named(found: list[Manifest], name: str) -> Manifest:
    """One object by name."""
    return next(one for one in found if one["metadata"]["name"] == name)


def test_the_rules_are_those_of_the_operators_code() -> None:
    assert (CHART / "files" / "rbac-rules.yaml").read_text() == rbac.yaml_text()


def test_an_operator_of_all_namespaces_has_its_rules_in_a_cluster_role() -> None:
    found = manifests({})
    assert (
        named(of_kind(found, "ClusterRole"), f"kvloop-operator-{NAMESPACE}")["rules"]
        == (RULES["watched"])
    )
    assert [one["metadata"]["namespace"] for one in of_kind(found, "Role")] == [NAMESPACE]


def test_an_operator_of_named_namespaces_has_rights_there_only() -> None:
    found = manifests({"operator": {"namespaces": ["chat", "agents"]}})
    roles = [one for one in of_kind(found, "Role") if one["rules"] == RULES["watched"]]
    assert [one["metadata"]["namespace"] for one in roles] == ["chat", "agents"]
    assert of_kind(found, "ClusterRoleBinding") == []
    bound = {one["metadata"]["namespace"] for one in of_kind(found, "RoleBinding")}
    assert bound == {"chat", "agents", NAMESPACE}


def test_rights_on_the_lease_are_in_the_operators_own_namespace() -> None:
    role = named(of_kind(manifests(FULL), "Role"), "kvloop-operator-leader")
    assert role["rules"] == RULES["own"]
    assert role["metadata"]["namespace"] == NAMESPACE


@pytest.mark.parametrize("values", [{}, FULL], ids=["default", "full"])
def test_no_rule_has_a_wildcard(values: dict[str, Any]) -> None:
    for role in (one for one in manifests(values) if one["kind"] in ("Role", "ClusterRole")):
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


@pytest.mark.parametrize("values", [{}, FULL], ids=["default", "full"])
def test_every_binding_names_a_role_that_is_there_and_the_operators_account(
    values: dict[str, Any],
) -> None:
    found = manifests(values)
    account = of_kind(found, "ServiceAccount")[0]["metadata"]
    for binding in (one for one in found if one["kind"].endswith("RoleBinding")):
        role = (binding["roleRef"]["kind"], binding["roleRef"]["name"])
        there = {(one["kind"], one["metadata"]["name"]) for one in found}
        assert role in there
        subject = binding["subjects"][0]
        assert (subject["name"], subject["namespace"]) == (account["name"], NAMESPACE)


def test_viewers_see_and_editors_change_the_custom_resources() -> None:
    roles = of_kind(manifests({}), "ClusterRole")
    view = named(roles, f"kvloop-operator-{NAMESPACE}-view")
    edit = named(roles, f"kvloop-operator-{NAMESPACE}-edit")
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert view["metadata"]["labels"][f"{prefix}view"] == "true"
    assert f"{prefix}view" not in edit["metadata"]["labels"]
    assert edit["metadata"]["labels"][f"{prefix}edit"] == "true"
    assert set(view["rules"][0]["resources"]) >= CUSTOM
    assert view["rules"][0]["verbs"] == ["get", "list", "watch"]
    changed = {name for rule in edit["rules"] for name in rule["resources"]}
    assert changed == CUSTOM | {"sharedcaches/scale", "pdclusters/scale"}
