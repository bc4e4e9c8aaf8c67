"""A report for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, Group
from rich.text import Text

from kvloop.benchmark.results.claim_cells import CLAIMS_TITLE, claim_cells
from kvloop.benchmark.results.document import ArmResult, Report, Spread, Summary
from kvloop.benchmark.results.lines import error_lines, result_lines
from kvloop.benchmark.sample import Sources
from kvloop.benchmark.terminal import FittedTable

MAX_TURNS = 12
"""Rows of turns; the JSON has all."""


def show(report: Report, console: Console) -> None:
    """Print what each arm showed, the claims, and all that went wrong."""
    server = report.server
    console.print(f"{report.title}: {server.model} at {server.url}", markup=False, style="bold")
    for table in _tables(report):
        console.print(table)
    for line in result_lines(report):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    for line in error_lines(report):
        console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
    for line in report.warnings:
        is_grave = line.split(":")[0].isupper()
        style = "bold red" if is_grave else "yellow"
        console.print(f"! {line}", style=style, markup=False, highlight=False, soft_wrap=True)


def _titled(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Group:
    # A table's own title is broken at the table's width.
    return Group(Text(title), FittedTable(columns, [*rows]))


def _tables(report: Report) -> Iterator[Group]:
    yield _latency_table(report)
    yield _hit_table(report)
    yield _ttft_table(report)
    yield _length_table(report)
    for arm in report.arms:
        if (sources := _sources_table(arm)) is not None:
            yield sources
    if report.steps:
        yield _step_table(report)
    if report.claims:
        yield _titled(CLAIMS_TITLE, *claim_cells(report.claims))


def _latency_table(report: Report) -> Group:
    columns = (
        "arm", "TTFT p50", "p90", "p99", "ITL p50", "p99", "TPOT p50", "p99", "E2E p50", "p99",
    )  # fmt: skip
    rows = (
        (
            arm.arm,
            *_cells(arm.all.ttft_ms, "p50", "p90", "p99"),
            *_cells(arm.all.itl_ms, "p50", "p99"),
            *_cells(arm.all.tpot_ms, "p50", "p99"),
            *_cells(arm.all.e2e_ms, "p50", "p99"),
        )
        for arm in report.arms
    )
    return _titled("latency of all turns (ms; E2E: whole answers)", columns, rows)


def _cells(spread: Spread | None, *names: str) -> list[str]:
    return ["-" if spread is None else _ms(getattr(spread, name)) for name in names]


def _ttft(summary: Summary | None) -> str:
    if summary is None or summary.ttft_ms is None:
        return "-"
    return f"{_ms(summary.ttft_ms.p50)} / {_ms(summary.ttft_ms.p99)}"


def _ms(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _turns(report: Report) -> Iterator[tuple[str, list[Summary | None]]]:
    """A row's name and each arm's summary."""
    each = [{turn.turn: turn.summary for turn in arm.turns} for arm in report.arms]
    numbers = sorted({number for turns in each for number in turns})
    for number in numbers[:MAX_TURNS]:
        yield str(number), [turns.get(number) for turns in each]
    if len(numbers) > MAX_TURNS:
        yield f"({len(numbers) - MAX_TURNS} more)", [None] * len(each)
    yield "2 on", [arm.later_turns for arm in report.arms]
    yield "all", [arm.all for arm in report.arms]


def _ttft_table(report: Report) -> Group:
    columns = ("turn", *(arm.arm for arm in report.arms))
    rows = ((name, *map(_ttft, each)) for name, each in _turns(report))
    return _titled("TTFT by turn (ms): p50 / p99", columns, rows)


def _length_table(report: Report) -> Group:
    each = [{length.low: length.summary for length in arm.lengths} for arm in report.arms]
    ranges = sorted({(length.low, length.high) for arm in report.arms for length in arm.lengths})
    columns = ("prompt tokens", *(arm.arm for arm in report.arms))
    rows = (
        (f"{low} to {high - 1}", *(_ttft(lengths.get(low)) for lengths in each))
        for low, high in ranges
    )
    return _titled("TTFT by prompt length (ms): p50 / p99", columns, rows)


def _hit_table(report: Report) -> Group:
    arms = [arm.arm for arm in report.arms]
    columns = ("turn", "requests", "prompt tokens", "possible", *arms)
    rows = (
        (name, *_load_cells(each), *(_hit(summary) for summary in each))
        for name, each in _turns(report)
    )
    title = "cached share of prompt tokens by arm; possible: what the turn before left behind"
    return _titled(title, columns, rows)


def _load_cells(each: Sequence[Summary | None]) -> tuple[str, ...]:
    """Of the arm that answered most; what all could reuse is that of the best."""
    known = [summary for summary in each if summary is not None and summary.requests]
    if not known:
        return ("-", "-", "-")
    most = max(known, key=lambda s: s.requests)
    possible = max(s.reusable_rate for s in known)
    return str(most.requests), str(most.prompt_tokens), f"{possible:.1%}"


def _hit(summary: Summary | None) -> str:
    if summary is None or not summary.requests:
        return "-"
    return "not told" if summary.hit_rate is None else f"{summary.hit_rate:.1%}"


def _sources_table(arm: ArmResult) -> Group | None:
    turns = [(str(turn.turn), turn.summary) for turn in arm.turns[:MAX_TURNS]]
    rows = [(name, s.sources) for name, s in (*turns, ("2 on", arm.later_turns), ("all", arm.all))]
    known = [(name, *_source_cells(sources)) for name, sources in rows if sources is not None]
    if not known or not arm.all.cached_tokens:
        return None
    columns = ("turn", "computed", "L1", "L2", "L3", "by prefill", "by decode", "transfer skipped")
    title = f"arm {arm.arm}: where prompt tokens came from (L1 device, L2 host, L3 shared cache)"
    return _titled(title, columns, known)


def _source_cells(s: Sources) -> list[str]:
    counts = (s.computed, s.device, s.host, s.storage, s.storage_by_prefill, s.storage_by_decode)
    return [*map(str, counts), str(s.transfer_skipped)]


def _step_table(report: Report) -> Group:
    columns = (
        "offered", "answered/s", "output tokens/s", "TTFT p50 / p99", "TPOT p50", "goodput", "lost",
    )  # fmt: skip
    rows = (
        (
            step.arm if step.rate is None else f"{step.arm} at {step.rate:g}/s",
            f"{step.rates.requests_per_s:.2f}",
            f"{step.rates.output_tokens_per_s:.1f}",
            _ttft(step.all),
            *_cells(step.all.tpot_ms, "p50"),
            "-" if step.goodput is None else f"{step.goodput.share:.0%}",
            str(step.counts.failed + step.counts.not_sent),
        )
        for step in report.steps
    )
    return _titled(
        "rate sweep (times in ms; goodput: share of requests within the objectives)", columns, rows
    )
