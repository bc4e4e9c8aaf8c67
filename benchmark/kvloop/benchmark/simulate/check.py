"""A measured run beside the same requests simulated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table

from kvloop.benchmark.results.document import Report
from kvloop.benchmark.sample import Sample
from kvloop.benchmark.simulate.cluster import Run
from kvloop.benchmark.simulate.report_load import samples_of
from kvloop.benchmark.simulate.served import Served, add_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A median, in seconds; ratio is simulated / measured."""

    simulated: float
    measured: float

    @property
    def ratio(self) -> float:
        return self.simulated / self.measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Of some requests; `turn` None: of all. Hit rates are shares of prompt tokens."""

    turn: int | None
    requests: int
    ttft: Pair
    tpot: Pair | None
    simulated_hit_rate: float
    measured_hit_rate: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Of prompt tokens, by tier: simulated, and as the nodes counted (None: not reported)."""

    tier: str
    simulated: float
    measured: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Whether the simulation can be believed for this cluster and model."""

    rows: tuple[Rows, ...]
    tiers: tuple[Shares, ...]
    tolerance: float
    is_close: bool
    """Whether the median TTFT of all requests is within the tolerance."""


def check(report: Report, run: Run, tolerance: float) -> Check:
    """`run` is of this report's load."""
    pairs = _pairs(samples_of(report), run.served)
    turns = sorted({sample.turn for sample, _ in pairs})
    rows = [_rows(None, pairs)]
    rows += [_rows(turn, [pair for pair in pairs if pair[0].turn == turn]) for turn in turns]
    return Check(
        rows=tuple(rows),
        tiers=tuple(_tiers(pairs)),
        tolerance=tolerance,
        is_close=abs(rows[0].ttft.ratio - 1) <= tolerance,
    )


def show_check(comparison: Check, console: Console) -> None:
    """Times, hit rates and tiers side by side, and the verdict."""
    table = Table(title="simulated, and real as measured; medians", title_justify="left")
    for head in ("turn", "n", "TTFT s", "real", "ratio", "TPOT ms", "real", "ratio"):
        table.add_column(head, justify="right", no_wrap=True)
    for head in ("hits", "real"):
        table.add_column(head, justify="right", no_wrap=True)
    for rows in comparison.rows:
        table.add_row(*_cells(rows))
    console.print(table)
    tiers = Table(title="prompt tokens from", title_justify="left")
    for head in ("tier", "simulated", "real"):
        tiers.add_column(head, justify="left" if head == "tier" else "right")
    for share in comparison.tiers:
        tiers.add_row(share.tier, f"{share.simulated:.1%}", _percent(share.measured))
    console.print(tiers)
    ratio, allowed = comparison.rows[0].ttft.ratio, comparison.tolerance
    verdict = "within" if comparison.is_close else "NOT within"
    console.print(
        f"median TTFT: simulated {ratio:.2f} of what was measured, {verdict} {allowed:.0%}"
    )


def _pairs(samples: Sequence[Sample], served: Sequence[Served]) -> list[tuple[Sample, Served]]:
    """By conversation, turn, and the order of sending where a round repeats them."""

    def place(one: Sample | Served) -> tuple[int, int, float]:
        at_s = one.sent_at if isinstance(one, Sample) else one.at_s
        return one.conversation, one.turn, at_s

    return list(zip(sorted(samples, key=place), sorted(served, key=place), strict=True))


def _rows(turn: int | None, pairs: Sequence[tuple[Sample, Served]]) -> Rows:
    timed = [(s.tpot_s, m.tpot_s) for m, s in pairs if s.tpot_s and m.tpot_s]
    prompts = sum(sample.prompt_tokens for sample, _ in pairs)
    cached = [sample.cached_tokens for sample, _ in pairs]
    known = [num for num in cached if num is not None]
    return Rows(
        turn=turn,
        requests=len(pairs),
        ttft=Pair(
            simulated=median(served.ttft_s for _, served in pairs),
            measured=median(sample.ttft_s for sample, _ in pairs),
        ),
        tpot=Pair(simulated=median(s for s, _ in timed), measured=median(m for _, m in timed))
        if timed
        else None,
        simulated_hit_rate=add_tokens([served.found for _, served in pairs]).hit_rate,
        measured_hit_rate=sum(known) / prompts if len(known) == len(cached) else None,
    )


def _tiers(pairs: Sequence[tuple[Sample, Served]]) -> list[Shares]:
    """What decode holds is sent by nobody: the nodes count it apart, so it is taken out here."""
    usages = [served.usage for _, served in pairs]
    sources = [sample.sources for sample, _ in pairs]
    known = [one for one in sources if one is not None]
    total = sum(sample.prompt_tokens for sample, _ in pairs)

    def shares(tier: str, simulated: int, measured: Callable[[], int]) -> Shares:
        has_all = len(known) == len(sources)
        return Shares(
            tier=tier,
            simulated=simulated / total,
            measured=measured() / total if has_all else None,
        )

    return [
        shares("L1", sum(u.device for u in usages), lambda: sum(s.device for s in known)),
        shares("L2", sum(u.host for u in usages), lambda: sum(s.host for s in known)),
        shares("L3", sum(u.storage for u in usages), lambda: sum(s.storage for s in known)),
        shares(
            "held by decode too",
            sum(served.held_tokens for _, served in pairs),
            lambda: sum(s.transfer_skipped for s in known),
        ),
        shares("computed", sum(u.computed for u in usages), lambda: sum(s.computed for s in known)),
    ]


def _cells(rows: Rows) -> list[str]:
    tpot = ["-"] * 3
    if rows.tpot is not None:
        tpot = [
            f"{1000 * rows.tpot.simulated:.0f}",
            f"{1000 * rows.tpot.measured:.0f}",
            f"{rows.tpot.ratio:.2f}",
        ]
    return [
        "all" if rows.turn is None else str(rows.turn),
        str(rows.requests),
        f"{rows.ttft.simulated:.3f}",
        f"{rows.ttft.measured:.3f}",
        f"{rows.ttft.ratio:.2f}",
        *tpot,
        f"{rows.simulated_hit_rate:.1%}",
        _percent(rows.measured_hit_rate),
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
