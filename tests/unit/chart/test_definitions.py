"""The custom resource definitions are installed as they were generated."""

from __future__ import annotations

import copy
import json
from typing import Any

import helm_python
import yaml
from chart import CHART, LOADER, manifests, of_kind

KEEP = "helm.sh/resource-policy"
RULES = "x-kubernetes-validations"


def generated() -> dict[str, dict[str, Any]]:
    """By name."""
    files = sorted((CHART / "files" / "crds").glob("*.yaml"))
    found = [yaml.load(path.read_text(), LOADER) for path in files]
    return {one["metadata"]["name"]: one for one in found}


def test_the_chart_installs_what_the_types_say() -> None:
    installed = of_kind(manifests({}), "CustomResourceDefinition")
    bare = copy.deepcopy(installed)
    for one in bare:
        del one["metadata"]["labels"]
    assert {one["metadata"]["name"]: one for one in bare} == generated()


def test_clusters_older_than_cel_get_no_rules_and_all_the_rest() -> None:
    old = of_kind(manifests({}, version="v1.24.9"), "CustomResourceDefinition")
    text = json.dumps(old)
    assert RULES not in text
    for one in old:
        del one["metadata"]["labels"]
    assert {one["metadata"]["name"]: one for one in old} == without_rules(generated())
    assert RULES in json.dumps(of_kind(manifests({}, version="v1.25.0"), old[0]["kind"]))


def without_rules(node: Any) -> Any:
    """The same without CEL."""
    if isinstance(node, dict):
        return {key: without_rules(value) for key, value in node.items() if key != RULES}
    return [without_rules(one) for one in node] if isinstance(node, list) else node


def test_keep_marks_the_definitions_so_that_uninstalling_leaves_them() -> None:
    kept = of_kind(manifests({"crds": {"keep": True}}), "CustomResourceDefinition")
    assert {one["metadata"]["annotations"][KEEP] for one in kept} == {"keep"}
    assert len(kept) == 3
    for one in of_kind(manifests({}), "CustomResourceDefinition"):
        assert KEEP not in one["metadata"].get("annotations", {})


def test_definitions_may_be_left_to_others() -> None:
    found = manifests({"crds": {"enabled": False}})
    assert of_kind(found, "CustomResourceDefinition") == []


def test_the_charts_metadata_names_each_definition() -> None:
    with helm_python.Chart.load(CHART) as chart:
        notes = chart.metadata["annotations"]
    told = yaml.safe_load(notes["artifacthub.io/crds"])
    assert {one["name"] for one in told} == set(generated())
    kinds = {one["spec"]["names"]["kind"] for one in generated().values()}
    assert {one["kind"] for one in told} == kinds
    examples = yaml.safe_load(notes["artifacthub.io/crdsExamples"])
    assert {one["kind"] for one in examples} == kinds
