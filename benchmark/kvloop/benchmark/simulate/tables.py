"""Simulated runs for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from kvloop.benchmark.results.document import Spread
from kvloop.benchmark.simulate.result import Objective, SimulationResult, cheapest

_GIB = 2**30


def show_run(result: SimulationResult, objective: Objective, console: Console) -> None:
    """One run: where tokens came from, how long things took, how busy everything was."""
    sizes = result.sizes
    l3 = "unbounded" if sizes.l3 is None else f"{sizes.l3 * sizes.page_bytes / _GIB:.1f} GiB"
    console.print(
        f"{result.prefill} prefill, {result.decode} decode, {result.requests} requests in "
        f"{result.duration_s:.1f} s; L1 {sizes.l1 * sizes.page_bytes / _GIB:.1f} GiB, "
        f"L2 {sizes.l2 * sizes.page_bytes / _GIB:.1f} GiB a node, L3 {l3}",
        soft_wrap=True,
    )
    console.print(_tokens(result))
    console.print(_times(result))
    console.print(_use(result))
    if objective.is_set:
        console.print(
            f"{result.met} of {result.requests} ({result.met_share:.1%}) meet {_wish(objective)}"
        )
    if result.price_per_hour is not None and result.price_per_1000_requests is not None:
        console.print(
            f"{result.devices} devices cost ${result.price_per_hour:.2f} an hour, "
            f"${result.price_per_1000_requests:.2f} for 1,000 requests"
        )


def show_sweep(results: Sequence[SimulationResult], objective: Objective, console: Console) -> None:
    """One row a setting, and the cheapest that meets the objective."""
    has_price = results[0].price_per_hour is not None
    heads = [*results[0].settings, "devices", "hit rate", "L1", "L2", "L3"]
    heads += ["TTFT p50", "p99", "TPOT p50", "p99", "busy P", "D"]
    heads += ["met"] if objective.is_set else []
    heads += ["$/h", "$/1000"] if has_price else []
    table = Table()
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    best = _best(results) if objective.is_set else {}
    for result in results:
        cells = [_said(value) for value in result.settings.values()] + _row(result)
        cells += [f"{result.met_share:.1%}"] if objective.is_set else []
        prices = (result.price_per_hour, result.price_per_1000_requests)
        cells += [f"{price:.2f}" for price in prices if price is not None]
        table.add_row(*cells, style="bold green" if result in best.values() else None)
    console.print(table)
    for scale, one in best.items():
        console.print(_advice(one, scale, objective), soft_wrap=True)


def _best(results: Sequence[SimulationResult]) -> dict[object, SimulationResult | None]:
    """The cheapest for each speed of the load: a cluster for half of it is no cheaper one."""
    scales = dict.fromkeys(result.settings.get("time-scale") for result in results)
    return {
        scale: cheapest([one for one in results if one.settings.get("time-scale") == scale])
        for scale in scales
    }


def _said(value: object) -> str:
    return "unbounded" if value is None else str(value)


def _wish(objective: Objective) -> str:
    wishes = (("TTFT", objective.ttft_ms), ("TPOT", objective.tpot_ms))
    return " and ".join(f"{name} {value:g} ms" for name, value in wishes if value is not None)


def _advice(best: SimulationResult | None, scale: object, objective: Objective) -> str:
    wish = f"{_wish(objective)} for {objective.share:.0%} of requests"
    if best is None:
        return f"none of these meets {wish}" + ("" if scale is None else f" at time-scale {scale}")
    setting = ", ".join(f"{name} {_said(value)}" for name, value in best.settings.items())
    price = "" if best.price_per_hour is None else f", ${best.price_per_hour:.2f} an hour"
    return f"cheapest with {wish}: {setting} ({best.devices} devices{price})"


def _row(result: SimulationResult) -> list[str]:
    tokens = result.tokens
    found = (tokens.device, tokens.host, tokens.storage)
    return [
        str(result.devices),
        f"{result.hit_rate:.2%}",
        *(f"{part / tokens.total:.1%}" for part in found),
        *_median_and_tail(result.ttft_ms),
        *_median_and_tail(result.tpot_ms),
        f"{result.use.prefill:.0%}",
        f"{result.use.decode:.0%}",
    ]


def _median_and_tail(spread: Spread | None) -> tuple[str, str]:
    return ("-", "-") if spread is None else (f"{spread.p50:.0f} ms", f"{spread.p99:.0f} ms")


def _tokens(result: SimulationResult) -> Table:
    table, tokens = Table(title="prompt tokens", title_justify="left"), result.tokens
    rows = (
        ("L1 (device)", tokens.device),
        ("L2 (host)", tokens.host),
        ("L3, written by prefill", tokens.storage_by_prefill),
        ("L3, written by decode", tokens.storage_by_decode),
        ("computed", tokens.computed),
        ("all", tokens.total),
    )
    for head in ("from", "tokens", "share"):
        table.add_column(head, justify="left" if head == "from" else "right")
    for name, num in rows:
        table.add_row(name, f"{num:,}", f"{num / tokens.total:.2%}")
    table.add_row("hit rate", "", f"{result.hit_rate:.2%}", style="bold")
    return table


def _times(result: SimulationResult) -> Table:
    table, stages = Table(title="milliseconds", title_justify="left"), result.stages
    for head in ("", "mean", "p50", "p90", "p99", "max"):
        table.add_column(head, justify="right" if head else "left")
    rows = (
        ("TTFT", result.ttft_ms),
        ("  waits for decode's pages", stages.reserve_ms),
        ("  waits for prefill and L3", stages.queue_ms),
        ("  computing", stages.compute_ms),
        ("  sending the rest", stages.send_ms),
        ("TPOT", result.tpot_ms),
        ("end to end", result.e2e_ms),
    )
    for name, spread in rows:
        if spread is not None:
            numbers = (spread.mean, spread.p50, spread.p90, spread.p99, spread.max)
            table.add_row(name, *(f"{number:,.1f}" for number in numbers))
    return table


def _use(result: SimulationResult) -> Table:
    table, use = Table(title="use", title_justify="left"), result.use
    for head in ("part", "busy", "GiB"):
        table.add_column(head, justify="left" if head == "part" else "right")
    rows: tuple[tuple[str, float, float | None], ...] = (
        ("prefill", use.prefill, None),
        (f"decode, {use.mean_batch:.1f} sequences a step", use.decode, None),
        ("bus L2 to L1", use.pcie_up, use.pcie_up_bytes),
        ("bus L1 to L2", use.pcie_down, use.pcie_down_bytes),
        ("network, out of nodes", use.network_out, use.sent_bytes),
        ("network, into nodes", use.network_in, use.received_bytes),
        ("L3, read", use.l3_read, use.l3_read_bytes),
        ("L3, written", use.l3_write, use.l3_write_bytes),
    )
    for name, share, num_bytes in rows:
        table.add_row(name, f"{share:.1%}", "" if num_bytes is None else f"{num_bytes / _GIB:,.1f}")
    return table
