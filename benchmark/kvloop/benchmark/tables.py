"""A report for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.table import Table

from kvloop.benchmark.report import Report
from kvloop.benchmark.sample import Sources
from kvloop.benchmark.stats import Spread, Summary, summarize


def show(report: Report, console: Console) -> None:
    """Print tables, rates, and all that went wrong."""
    console.print(_reuse_table(report))
    console.print(_latency_table(report))
    if (sources := _sources_table(report)) is not None:
        console.print(sources)
    for line in _rate_lines(report):
        console.print(line, soft_wrap=True)
    for line in _warnings(report):
        console.print(line, style="yellow", markup=False, soft_wrap=True)


def _rows(report: Report) -> Iterator[tuple[str, Summary]]:
    for number in range(1, report.workload.turns + 1):
        yield str(number), report.turn(number)
    yield "2 on", report.later_turns
    yield "all", summarize(report.samples)


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _latency_table(report: Report) -> Table:
    columns = ("turn", "TTFT mean", "p50", "p99", "ITL mean", "p50", "p99", "queued mean", "p99")
    rows = (
        (name, *_cells(turn.ttft_ms), *_cells(turn.itl_ms), *_cells(turn.queued_ms, median=False))
        for name, turn in _rows(report)
    )
    return _table("latency (ms)", columns, rows)


def _cells(spread: Spread | None, *, median: bool = True) -> list[str]:
    if spread is None:
        return ["-"] * (2 + median)
    middle = [f"{spread.p50:.1f}"] if median else []
    return [f"{spread.mean:.1f}", *middle, f"{spread.p99:.1f}"]


def _reuse_table(report: Report) -> Table:
    columns = ("turn", "requests", "prompt tokens", "hit", "hit rate", "possible")
    rows = ((name, *_reuse_cells(turn)) for name, turn in _rows(report))
    return _table(f"{report.model} at {report.url}: cached prompt tokens", columns, rows)


def _reuse_cells(turn: Summary) -> list[str]:
    hit = "not reported" if turn.hit_rate is None else f"{turn.hit_rate:.1%}"
    return [
        str(turn.requests),
        str(turn.prompt_tokens),
        "-" if turn.cached_tokens is None else str(turn.cached_tokens),
        hit if turn.requests else "-",
        f"{turn.reusable_rate:.1%}",
    ]


def _sources_table(report: Report) -> Table | None:
    rows = [(name, _source_cells(turn.sources)) for name, turn in _rows(report) if turn.sources]
    columns = ("turn", "computed", "L1", "L2", "L3", "by prefill", "by decode", "transfer skipped")
    title = "where prompt tokens came from (L1 device, L2 host, L3 shared cache and its writers)"
    return _table(title, columns, [(name, *cells) for name, cells in rows]) if rows else None


def _source_cells(s: Sources | None) -> list[str]:
    assert s is not None
    counts = (s.computed, s.device, s.host, s.storage, s.storage_by_prefill, s.storage_by_decode)
    return [*map(str, counts), str(s.transfer_skipped)]


def _rate_lines(report: Report) -> Iterator[str]:
    everything = summarize(report.samples)
    yield (
        f"{len(report.samples)} of {report.workload.num_requests} requests in "
        f"{report.duration_s:.1f} s: {report.per_second(len(report.samples)):.2f} requests/s, "
        f"{report.per_second(everything.completion_tokens):.1f} output tokens/s, "
        f"{report.per_second(everything.prompt_tokens):.0f} prompt tokens/s"
    )


def _warnings(report: Report) -> Iterator[str]:
    for kind, num in report.errors.items():
        example = next(f for f in report.failures if f.kind == kind)
        yield (
            f"{num} failed: {kind}; the first: client {example.conversation}, turn {example.turn}: "
            f"{example.message}"
        )
    if report.num_not_sent:
        yield f"{report.num_not_sent} not sent: an earlier turn of their conversation failed"
    if report.num_short_answers:
        yield (
            f"{report.num_short_answers} answers had fewer than "
            f"{report.workload.output_length} tokens"
        )
    # In text every prompt begins with the template's own words: those may well hit.
    if report.workload.content == "token-ids" and report.turn(1).cached_tokens:
        yield (
            "turn 1 hit the cache: it knows these prompts from an earlier run; "
            "give another --seed or --cache-salt for a cold start"
        )
