"""Dashboard and alerts name metrics and labels that nodes, routers and the operator have."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from chart import CHART
from prometheus_client.metrics import MetricWrapperBase

from kvloop.engine.metrics import NodeMetrics
from kvloop.operator.runtime.metrics import Metrics as OperatorMetrics
from kvloop.router.canary.metrics import CanaryMetrics
from kvloop.router.metrics import RouterMetrics

OF_SCRAPING = {"namespace", "pod", "job", "instance", "le", "container"}
"""Labels that Prometheus adds, or histograms have."""
SCRIPT = Path(__file__).parents[3] / "scripts" / "write_dashboard.py"


def exported() -> dict[str, set[str]]:
    """Series names and their labels, from the registries of all parts."""
    registry = RouterMetrics().registry
    CanaryMetrics(registry)
    found: dict[str, set[str]] = {}
    for one in (registry, NodeMetrics().registry, OperatorMetrics().registry):
        for collector in list(one._collector_to_names):
            assert isinstance(collector, MetricWrapperBase)
            for name in one._collector_to_names[collector]:
                found.setdefault(name, set()).update(collector._labelnames)
    return found


METRICS = exported()


def expressions() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of all panels and alerts."""
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for group in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


EXPRESSIONS = list(expressions())


@pytest.mark.parametrize(("where", "expr"), EXPRESSIONS)
def test_every_metric_named_is_exported_with_the_labels_that_are_asked_of_it(
    where: str, expr: str
) -> None:
    names = re.findall(r"\bkvloop_\w+", expr)
    assert names
    known: set[str] = set()
    for name in names:
        assert name in METRICS, name
        known |= METRICS[name]
    asked = {
        label.strip() for group in re.findall(r"by \(([^)]*)\)", expr) for label in group.split(",")
    }
    asked |= set(re.findall(r"(\w+) *(?:=~|!~|!=|=)\"", expr))
    assert asked <= known | OF_SCRAPING


def test_legends_name_labels_that_their_query_keeps() -> None:
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                assert re.search(rf"by \([^)]*\b{label}\b[^)]*\)", target["expr"])


def test_the_dashboard_is_what_its_script_writes() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_the_dashboard_shows_tiers_loop_latency_canary_and_operator() -> None:
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert {"Tiers", "Reuse", "Latency", "Canary", "Write-back", "Operator"} <= set(rows)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


def test_panels_do_not_overlap() -> None:
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells and place["x"] + place["w"] <= 24
        taken |= cells


def test_alerts_say_what_happened_and_what_follows_from_it() -> None:
    groups = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    names = [rule["alert"] for rule in rules]
    assert len(set(names)) == len(names)
    assert {"KVLoopLoopBroken", "KVLoopOffloadBacklog", "KVLoopOperatorNoLeader"} <= set(names)
    for rule in rules:
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]
        assert rule["labels"]["severity"] in ("warning", "critical") and rule["for"]
