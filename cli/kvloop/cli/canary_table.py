"""A canary's report on the screen."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import msgspec
from rich.table import Table
from rich.text import Text

from kvloop.cli.cache.screen import console
from kvloop.router.canary.report import PairReport, Report, StageReport

_COLOURS = {"ok": "green", "failed": "red", "unknown": "yellow", "skipped": "dim"}
_RESULTS = {
    "whole": "the loop is whole",
    "broken": "the loop is broken at stage",
    "unknown": "the loop could not be observed at stage",
}


def show(report: Report, *, as_json: bool) -> int:
    """Print it; returns the exit status, and names on stderr the stage that is not ok."""
    if as_json:
        print(msgspec.json.encode(report).decode(), flush=True)
    else:
        screen = console()
        screen.print(_table(report))
        for note in _notes(report):
            screen.print(f"note: {note}", markup=False, soft_wrap=True)
    if report.result == "whole":
        return 0
    print(verdict(report), file=sys.stderr, flush=True)
    return 1


def verdict(report: Report) -> str:
    """One line: what the loop is, the first stage that is not ok, and why."""
    bad = next((one for one in report.stages if one.stage == report.broken_stage), None)
    bad = bad or next((one for one in report.stages if one.state != "ok"), None)
    words = _RESULTS[report.result]
    return words if bad is None else f"{words} {bad.stage}: {bad.reason}"


def _table(report: Report) -> Table:
    title = f"canary: {_RESULTS[report.result].removesuffix(' at stage')} ({report.seconds:.1f} s)"
    table = Table(title=title, title_justify="left")
    many = len(report.pairs) > 1
    if many:
        table.add_column("prefill, decode, prefill of turn 2", overflow="fold")
    table.add_column("stage", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("found of expected", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for pair in report.pairs if many else ():
        for index, stage in enumerate(pair.stages):
            table.add_row(_nodes(pair) if index == 0 else "", *_cells(stage))
        table.add_section()
    for index, stage in enumerate(report.stages):
        first = ["all pairs" if index == 0 else ""] if many else []
        table.add_row(*first, *_cells(stage))
    return table


def _nodes(pair: PairReport) -> str:
    urls = (pair.prefill, pair.decode, pair.reader)
    return " ".join(url.partition("://")[2] or url for url in urls)


def _cells(stage: StageReport) -> list[str | Text]:
    counts = (f"{name} {stage.found.get(name, 0)}/{n}" for name, n in stage.expected.items())
    return [
        stage.stage,
        Text(stage.state, style=_COLOURS[stage.state]),
        f"{stage.seconds:.2f} s" if stage.expected else "",
        ", ".join(counts),
        Text(stage.reason),
    ]


def _notes(report: Report) -> Iterator[str]:
    yield from report.notes
    yield from dict.fromkeys(pair.note for pair in report.pairs if pair.note is not None)
