"""The page's tables as text. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kvloop.benchmark.page import looks, units
from kvloop.benchmark.page.verdict import objective
from kvloop.benchmark.results.document import (
    ArmResult,
    Claim,
    Counts,
    Rates,
    Report,
    Spread,
    Summary,
)

MOST_FAILURES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Its first column is a name, the others numbers, but for those in `wordy`."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    wordy: tuple[int, ...] = (0,)
    note: str | None = None


def main_tables(report: Report) -> list[Table]:
    """Those that are always open; empty ones are left out."""
    made = [
        _arms(report),
        _claims(report),
        _savings(report),
        _goodput(report),
        _steps(report),
        _errors(report),
        _failures(report),
        _driver(report),
    ]
    return [table for table in made if table.rows]


def detail_tables(report: Report) -> list[Table]:
    """Each arm's turns, then its prompt lengths."""
    made = [table for arm in report.arms for table in (_turns(arm), _lengths(arm))]
    return [table for table in made if table.rows]


_SUMMARY_HEAD = (
    "requests", "hit rate", "possible", "TTFT p50", "p99", "ITL p50", "p99", "TPOT p50",
    "end to end p50", "p99",
)  # fmt: skip


def _summary_cells(s: Summary) -> tuple[str, ...]:
    return (
        units.count(s.requests),
        units.share(s.hit_rate),
        units.share(s.reusable_rate),
        *_p50_p99(s.ttft_ms),
        *_p50_p99(s.itl_ms),
        _p50_p99(s.tpot_ms)[0],
        *_p50_p99(s.e2e_ms),
    )


def _p50_p99(spread: Spread | None) -> tuple[str, str]:
    if spread is None:
        return "-", "-"
    return units.duration(spread.p50), units.duration(spread.p99)


def _arms(report: Report) -> Table:
    rows = []
    for arm in report.arms:
        rows.append((f"{looks.NAMES[arm.arm]}, all turns", *_summary_cells(arm.all)))
        rows.append((f"{looks.NAMES[arm.arm]}, later turns", *_summary_cells(arm.later_turns)))
    for step in report.steps:
        name = f"{looks.NAMES[step.arm]}, {_load(step.rate)}"
        rows.append((name, *_summary_cells(step.all)))
    return Table(title="Times and hits", head=("arm", *_SUMMARY_HEAD), rows=tuple(rows))


def _turns(arm: ArmResult) -> Table:
    return Table(
        title=f"{looks.NAMES[arm.arm]}, by turn",
        head=("turn", *_SUMMARY_HEAD),
        rows=tuple((str(t.turn), *_summary_cells(t.summary)) for t in arm.turns),
    )


def _lengths(arm: ArmResult) -> Table:
    return Table(
        title=f"{looks.NAMES[arm.arm]}, by prompt length",
        head=("prompt tokens", *_SUMMARY_HEAD),
        rows=tuple(
            (f"{units.count(n.low)} to {units.count(n.high - 1)}", *_summary_cells(n.summary))
            for n in arm.lengths
        ),
    )


_MEASURES = {
    "ttft_later_turns": "TTFT of later turns",
    "ttft": "TTFT",
    "itl": "ITL",
    "tpot": "TPOT",
    "e2e": "end to end",
    "output_rate": "output tokens a second",
}


def _claims(report: Report) -> Table:
    """A row for each measure of a pair: its medians' ratio, and its means'."""
    claims = {(c.arm, c.control, c.name): c for c in report.claims}
    return Table(
        title="What one arm was against another",
        head=(
            "arm against its control",
            "what",
            "ratio of medians",
            "its 95 % interval",
            "ratio of means",
            "its 95 % interval",
            "conversations",
        ),
        rows=tuple(
            (
                f"{looks.NAMES[claim.arm]} against {looks.NAMES[claim.control]}",
                _MEASURES.get(claim.name, claim.name),
                *_ratio(claim),
                *_ratio(claims.get((claim.arm, claim.control, f"{claim.name}_mean"))),
                units.count(claim.num_conversations),
            )
            for claim in report.claims
            if not claim.name.endswith("_mean")
        ),
        wordy=(0, 1),
        note=(
            "Of times, a ratio below 1 says that the arm is faster than its control. The rate of "
            "output tokens is of all tokens over all seconds."
        ),
    )


def _ratio(claim: Claim | None) -> tuple[str, str]:
    if claim is None:
        return "-", "-"
    return f"{claim.value:.3f}", _interval(claim.low, claim.high, 3)


def _savings(report: Report) -> Table:
    s = report.savings
    rows: list[tuple[str, ...]] = []
    if s is not None:
        rows = [
            ("arm and control", f"{looks.NAMES[s.arm]} against {looks.NAMES[s.control]}"),
            ("seconds of computing saved in this run", units.digits(s.gpu_s)),
            ("95 % interval of it", _interval(s.low, s.high)),
            ("per 1,000 requests", f"{units.digits(s.per_1000_requests_s)} s"),
            ("price of an hour", _optional(s.price_per_gpu_hour)),
            ("price saved per 1,000 requests", _optional(s.price_per_1000_requests)),
            ("how it was counted", s.how),
        ]
    note = "Below 0: the arm took more than its control." if s and s.gpu_s < 0 else None
    head = ("what", "value")
    return Table(title="What reuse saved", head=head, rows=tuple(rows), wordy=(0, 1), note=note)


def _interval(low: float | None, high: float | None, places: int = 1) -> str:
    if low is None or high is None:
        return "too few to tell"
    return f"{low:,.{places}f} to {high:,.{places}f}"


def _optional(value: float | None) -> str:
    return "not given" if value is None else units.digits(value)


def _goodput(report: Report) -> Table:
    steps = [(f"{looks.NAMES[s.arm]}, {_load(s.rate)}", s.goodput) for s in report.steps]
    arms = [(looks.NAMES[a.arm], a.goodput) for a in report.arms]
    return Table(
        title="Requests within the objective (goodput)",
        head=("arm", "objective", "met", "of planned", "met a second"),
        rows=tuple(
            (
                name,
                objective(g.ttft_ms, g.tpot_ms),
                units.count(g.met),
                units.share(g.share),
                units.digits(g.requests_per_s),
            )
            for name, g in [*arms, *steps]
            if g is not None
        ),
        wordy=(0, 1),
        note="A failed request missed its objective.",
    )


def _load(rate: float | None) -> str:
    return "closed loop" if rate is None else f"{units.tick(rate)} requests/s offered"


def _steps(report: Report) -> Table:
    return Table(
        title="Requests, and the rates of tokens",
        head=("arm", *_COUNTS_HEAD),
        rows=(
            *((looks.NAMES[a.arm], *_count_cells(a.counts, a.rates)) for a in report.arms),
            *(
                (f"{looks.NAMES[s.arm]}, {_load(s.rate)}", *_count_cells(s.counts, s.rates))
                for s in report.steps
            ),
        ),
    )


_COUNTS_HEAD = (
    "planned", "answered", "failed", "not sent", "short answers",
    "requests/s", "output tokens/s", "prompt tokens/s",
)  # fmt: skip


def _count_cells(counts: Counts, rates: Rates) -> tuple[str, ...]:
    return (
        units.count(counts.planned),
        units.count(counts.completed),
        units.count(counts.failed),
        units.count(counts.not_sent),
        units.count(counts.short_answers),
        units.digits(rates.requests_per_s),
        units.digits(rates.output_tokens_per_s),
        units.digits(rates.prompt_tokens_per_s),
    )


def _errors(report: Report) -> Table:
    kinds = list(dict.fromkeys(kind for a in report.arms for kind in a.errors))
    return Table(
        title="Failures by kind",
        head=("kind", *(looks.NAMES[a.arm] for a in report.arms)),
        rows=tuple(
            (kind, *(units.count(a.errors.get(kind, 0)) for a in report.arms)) for kind in kinds
        ),
    )


def _failures(report: Report) -> Table:
    shown = report.failures[:MOST_FAILURES]
    left = len(report.failures) - len(shown)
    return Table(
        title="The first failures",
        head=("kind", "message", "arm", "second", "conversation", "turn"),
        rows=tuple(
            (
                failure.kind,
                failure.message[:300],
                looks.NAMES[failure.arm],
                f"{failure.at_s:.1f}",
                str(failure.conversation),
                str(failure.turn),
            )
            for failure in shown
        ),
        wordy=(0, 1, 2),
        note=f"{units.count(left)} more are in the JSON." if left else None,
    )


def _driver(report: Report) -> Table:
    return Table(
        title="What the driver itself cost",
        head=("what", "value"),
        rows=tuple(_driver_rows(report)),
        wordy=(0, 1),
    )


def _driver_rows(report: Report) -> Iterator[tuple[str, str]]:
    cost = report.driver
    if cost is None:
        return
    yield "verdict", cost.words
    if cost.lag_ms is not None:
        late = (cost.lag_ms.p50, cost.lag_ms.p99, cost.lag_ms.max)
        p50, p99, most = (units.duration(ms) for ms in late)
        yield "its event loop was late by", f"{p50} (median), {p99} (p99), {most} (at most)"
    yield "its share of one core", units.share(cost.cpu_share)
    yield "requests at the server at once, at most", units.count(cost.most_streams)


def facts(report: Report) -> list[tuple[str, str]]:
    """How the run was made: names and values."""
    kind = report.server.name if report.server.name != "other" else "not kvloop"
    return [
        ("server", f"{report.server.model} at {report.server.url} ({kind})"),
        ("hardware", report.hardware),
        ("started", report.started_at),
        ("took", units.duration(1000 * report.duration_s)),
        *((f"load: {key.replace('_', ' ')}", _plain(v)) for key, v in report.workload.items()),
        *_ceiling(report),
        ("kvloop", report.version),
        ("schema of the JSON", report.schema),
    ]


def _plain(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_plain, value))
    return str(value)


def _ceiling(report: Report) -> list[tuple[str, str]]:
    c = report.ceiling
    if c is None:
        return []
    counts = f"{units.count(c.reusable_tokens)} of {units.count(c.tokens)} prompt tokens"
    return [("reusable at most", f"{units.share(c.rate)} ({counts}): {c.words}")]
