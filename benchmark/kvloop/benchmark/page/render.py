"""Renders a report as one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from kvloop.benchmark.page import looks, tables
from kvloop.benchmark.page.alarms import alarms
from kvloop.benchmark.page.charts.by_turn import E2E, TTFT, by_turn
from kvloop.benchmark.page.charts.hit_rate import hit_rate_by_turn
from kvloop.benchmark.page.charts.throughput import throughput
from kvloop.benchmark.page.charts.timeline import timeline
from kvloop.benchmark.page.charts.token_times import token_times
from kvloop.benchmark.page.charts.ttft_by_length import ttft_by_length
from kvloop.benchmark.page.figure import Figure
from kvloop.benchmark.page.verdict import judge, main_arm
from kvloop.benchmark.results.document import Report

_TEMPLATES = Path(__file__).parent / "templates"


def render_page(report: Report) -> str:
    """The page: no script, nothing loaded, all text escaped; at most about 2 MB."""
    style = (_TEMPLATES / "page.css").read_text()
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            report=report,
            verdict=judge(report),
            alarms=alarms(report),
            figures=figures(report),
            tables=tables.main_tables(report),
            details=tables.detail_tables(report),
            facts=tables.facts(report),
            meanings=[(looks.NAMES[a.arm], a.arm, looks.MEANINGS[a.arm]) for a in report.arms],
            style=Markup(style),
            style_hash=_hash(style),
        )
    )


def figures(report: Report) -> list[Figure]:
    """The plots, in the page's order."""
    arm = main_arm(report)
    hits = [hit_rate_by_turn(report, arm.arm if arm else "on")]
    if arm is not None and arm.arm == "on" and any(a.arm == "l3_only" for a in report.arms):
        hits.append(hit_rate_by_turn(report, "l3_only"))
    return [
        by_turn(report, TTFT),
        *hits,
        throughput(report),
        ttft_by_length(report),
        by_turn(report, E2E),
        token_times(report),
        timeline(report),
    ]


def _hash(style: str) -> str:
    digest = hashlib.sha256(style.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
