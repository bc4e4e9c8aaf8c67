"""The custom resource definitions are installed as they were generated."""

from __future__ import annotations

import copy

import helm_python
import yaml
from chart import CHART, LOADER, manifests, of_kind

KEEP = "helm.sh/resource-policy"


def generated() -> dict[str, dict[str, object]]:
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
    kinds = {one["spec"]["names"]["kind"] for one in generated().values()}  # type: ignore[index]
    assert {one["kind"] for one in told} == kinds
    examples = yaml.safe_load(notes["artifacthub.io/crdsExamples"])
    assert {one["kind"] for one in examples} == kinds
