"""The examples are resources without a problem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from chart import CHART, LOADER

from kvloop.operator.parse import parse_benchmark, parse_pd_cluster, parse_shared_cache

EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
PARSE = {
    "SharedCache": parse_shared_cache,
    "PDCluster": parse_pd_cluster,
    "MultiTurnBenchmark": parse_benchmark,
}


def resources(path: Path) -> list[dict[str, Any]]:
    """Ours, of one file."""
    found = list(yaml.load_all(path.read_text(), LOADER))
    return [one for one in found if one["apiVersion"] == "kvloop.dev/v1alpha1"]


def of_annotation() -> list[dict[str, Any]]:
    """The examples in the chart's metadata."""
    with helm_python.Chart.load(CHART) as chart:
        text = chart.metadata["annotations"]["artifacthub.io/crdsExamples"]
    return list(yaml.safe_load(text))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_breaks_no_rule_and_names_no_namespace(path: Path) -> None:
    found = resources(path)
    assert found
    for one in found:
        assert "namespace" not in one["metadata"]
        PARSE[one["kind"]](one | {"metadata": {"namespace": "ns"} | one["metadata"]})


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_says_what_it_is_and_names_only_caches_that_it_brings(path: Path) -> None:
    assert path.read_text().startswith("# ")
    found = resources(path)
    caches = {one["metadata"]["name"] for one in found if one["kind"] == "SharedCache"}
    for one in found:
        spec = one["spec"]
        used = [spec.get("sharedCacheRef"), *spec.get("attachableCaches", [])]
        used += [spec.get("zones", {}).get(part) for part in ("local", "central")]
        assert {ref["name"] for ref in used if ref} <= caches


def test_the_examples_in_the_charts_metadata_break_no_rule() -> None:
    for one in of_annotation():
        PARSE[one["kind"]](one | {"metadata": {"namespace": "ns"} | one["metadata"]})


def test_every_example_that_the_docs_promise_is_there() -> None:
    assert {path.name for path in EXAMPLES} == {
        *("demo.yaml", "benchmark.yaml", "mooncake-rdma.yaml", "3fs.yaml", "sglang.yaml"),
        *("edge-zones.yaml", "file.yaml", "live-move.yaml"),
    }
