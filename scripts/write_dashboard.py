#!/usr/bin/env python3
"""Writes the chart's Grafana dashboard: `python scripts/write_dashboard.py [--check]`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "charts" / "kvloop" / "files" / "dashboard.json"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
NODES = 'namespace=~"$namespace"'
WIDTH = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One graph: lines by their legend."""

    title: str
    lines: dict[str, str]
    unit: str = "short"
    why: str = ""
    is_stacked: bool = False
    width: int = 8


def rate(metric: str, by: str = "", also: str = "") -> str:
    """A sum of rates."""
    where = f"{NODES}, {also}" if also else NODES
    sums = f"sum by ({by}) " if by else "sum "
    return f"{sums}(rate({metric}{{{where}}}[$__rate_interval]))"


def quantile(part: float, metric: str) -> str:
    """Of a histogram."""
    return (
        f"histogram_quantile({part}, sum by (le) "
        f"(rate({metric}_bucket{{{NODES}}}[$__rate_interval])))"
    )


def quantiles(metric: str) -> dict[str, str]:
    """Median and tail."""
    return {"p50": quantile(0.5, metric), "p99": quantile(0.99, metric)}


ROWS: dict[str, tuple[Panel, ...]] = {
    "Reuse": (
        Panel(
            title="Prompt tokens by where their KV came from",
            why="computed: nobody had it. device, host, storage: L1, L2, L3.",
            lines={"{{source}}": rate("kvloop_prompt_tokens_total", "source")},
            is_stacked=True,
        ),
        Panel(
            title="Share of prompt tokens that were not computed",
            lines={
                "hit rate": (
                    "1 - "
                    + rate("kvloop_prompt_tokens_total", also='source="computed"')
                    + " / "
                    + rate("kvloop_prompt_tokens_total")
                )
            },
            unit="percentunit",
        ),
        Panel(
            title="Tokens read from the shared cache, by the role that wrote them",
            lines={"{{writer}}": rate("kvloop_storage_hit_tokens_total", "writer")},
            is_stacked=True,
        ),
    ),
    "Canary": (
        Panel(
            title="Stages of the loop",
            why="1: the state that the last canary found the stage in.",
            lines={
                "{{stage}} {{state}}": (
                    f"max by (stage, state) (kvloop_canary_stage{{{NODES}}}) > 0"
                )
            },
        ),
        Panel(
            title="Canaries by result",
            lines={"{{result}}": rate("kvloop_canary_runs_total", "result")},
            unit="ops",
        ),
        Panel(
            title="Time of each stage",
            lines={"{{stage}}": f"max by (stage) (kvloop_canary_stage_seconds{{{NODES}}})"},
            unit="s",
        ),
    ),
    "Latency": (
        Panel(title="Time to first token", lines=quantiles("kvloop_ttft_seconds"), unit="s"),
        Panel(title="Between tokens", lines=quantiles("kvloop_itl_seconds"), unit="s"),
        Panel(title="Arrival to last token", lines=quantiles("kvloop_e2e_seconds"), unit="s"),
        Panel(title="Wait for work to begin", lines=quantiles("kvloop_queue_seconds"), unit="s"),
        Panel(title="Hand-off of KV", lines=quantiles("kvloop_hand_off_seconds"), unit="s"),
        Panel(title="One forward pass", lines=quantiles("kvloop_step_seconds"), unit="s"),
    ),
    "Load": (
        Panel(
            title="Requests by status",
            lines={"{{status}}": rate("kvloop_requests_total", "status")},
            unit="reqps",
            is_stacked=True,
        ),
        Panel(
            title="Tokens generated",
            lines={"tokens": rate("kvloop_generated_tokens_total")},
        ),
        Panel(
            title="Nodes, and prompts being served",
            lines={
                "{{role}} {{state}}": f"max by (role, state) (kvloop_nodes{{{NODES}}})",
                "in flight": f"sum (kvloop_router_in_flight{{{NODES}}})",
            },
        ),
    ),
    "Tiers": (
        Panel(
            title="Pages held, by tier",
            lines={"{{tier}}": f"sum by (tier) (kvloop_tier_pages{{{NODES}}})"},
            is_stacked=True,
        ),
        Panel(
            title="Bytes moved, by path",
            lines={"{{path}} {{result}}": rate("kvloop_pages_bytes_total", "path, result")},
            unit="Bps",
        ),
        Panel(
            title="Free pages of the device",
            lines={"{{pod}}": f"sum by (pod) (kvloop_device_free_pages{{{NODES}}})"},
        ),
        Panel(
            title="State of the shared cache",
            lines={
                "{{backend}} {{state}}": (
                    f"sum by (backend, state) (kvloop_storage_state{{{NODES}}}) > 0"
                )
            },
        ),
        Panel(
            title="Pages that were there and not waited for",
            lines={"{{reason}}": rate("kvloop_prefetch_unfulfilled_pages_total", "reason")},
        ),
        Panel(
            title="Holes in chains, by whether they were repaired",
            lines={"{{reason}} {{repaired}}": rate("kvloop_chain_holes_total", "reason, repaired")},
        ),
    ),
    "Write-back": (
        Panel(
            title="Pages yet to be stored",
            lines={
                "{{pod}}": f"sum by (pod) (kvloop_offload_backlog_pages{{{NODES}}})",
                "staging": f"sum (kvloop_offload_staging_pages{{{NODES}}})",
            },
        ),
        Panel(
            title="From a full page to the shared cache",
            lines=quantiles("kvloop_offload_seconds"),
            unit="s",
        ),
        Panel(
            title="Pages dropped, skipped, tried again",
            lines={
                "dropped {{policy}}": rate("kvloop_offload_dropped_pages_total", "policy"),
                "skipped {{reason}}": rate("kvloop_offload_skipped_pages_total", "reason"),
                "again": rate("kvloop_offload_retries_total"),
            },
        ),
    ),
    "Faults": (
        Panel(
            title="Faults seen and survived",
            lines={"{{kind}}": rate("kvloop_faults_total", "kind")},
        ),
        Panel(
            title="Paths left for another",
            lines={"{{kind}}": rate("kvloop_fallbacks_total", "kind")},
        ),
        Panel(
            title="Quarantined pages",
            lines={"{{pod}}": f"sum by (pod) (kvloop_quarantined_pages{{{NODES}}})"},
        ),
    ),
    "Operator": (
        Panel(
            title="Resources by Ready",
            lines={
                "{{kind}} {{status}}": (
                    'sum by (kind, status) (kvloop_resource_condition{type="Ready"}) > 0'
                )
            },
        ),
        Panel(
            title="Looks at resources",
            lines={
                "{{kind}} {{result}}": (
                    "sum by (kind, result) "
                    "(rate(kvloop_operator_reconcile_total[$__rate_interval]))"
                )
            },
            unit="ops",
        ),
        Panel(
            title="Time of a look",
            lines={
                "p99 {{kind}}": (
                    "histogram_quantile(0.99, sum by (le, kind) "
                    "(rate(kvloop_operator_reconcile_seconds_bucket[$__rate_interval])))"
                )
            },
            unit="s",
        ),
        Panel(
            title="Calls of the API server",
            lines={
                "{{verb}} {{code}}": (
                    "sum by (verb, code) (rate(kvloop_operator_api_calls_total[$__rate_interval]))"
                )
            },
            unit="reqps",
        ),
        Panel(title="Resources that are due", lines={"due": "max (kvloop_operator_queue_depth)"}),
        Panel(title="Leaders", lines={"leaders": "sum (kvloop_operator_leader)"}),
    ),
}


def dashboard() -> dict[str, Any]:
    """As Grafana imports it."""
    return {
        "title": "kvloop",
        "uid": "kvloop",
        "tags": ["kvloop"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source_choice(), _namespace_choice()]},
        "panels": _panels(),
    }


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    top = 0
    for row, members in ROWS.items():
        place = {"h": 1, "w": WIDTH, "x": 0, "y": top}
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": row, "gridPos": place, "panels": []}
        )
        top += 1
        for index, panel in enumerate(members):
            x, line = index % 3 * panel.width, index // 3
            place = {"h": 8, "w": panel.width, "x": x, "y": top + 8 * line}
            panels.append(_panel(len(panels) + 1, panel, place))
        top += 8 * ((len(members) + 2) // 3)
    return panels


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    stacking = {"stacking": {"mode": "normal"}, "fillOpacity": 30} if panel.is_stacked else {}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.why,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": stacking}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {"refId": chr(65 + index), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
            for index, (legend, expr) in enumerate(panel.lines.items())
        ],
    }


def _source_choice() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    }


def _namespace_choice() -> dict[str, Any]:
    return {
        "name": "namespace",
        "label": "Namespace",
        "type": "query",
        "datasource": SOURCE,
        "query": "label_values(kvloop_nodes, namespace)",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
    }


def main() -> int:
    """Write it; with --check, exit status 1 where the file differs."""
    text = json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"
    if "--check" not in sys.argv[1:]:
        FILE.write_text(text, encoding="utf-8")
        return 0
    if FILE.is_file() and FILE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{FILE} is not what this script writes: run it without --check", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
