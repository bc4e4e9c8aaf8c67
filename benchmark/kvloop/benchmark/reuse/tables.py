"""An account as a table and a verdict."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from kvloop.benchmark.reuse.account import Account, Row, why

_COLUMNS = (
    "turn",
    "chats",
    "pages expected",
    "found",
    "L1",
    "L2",
    "L3",
    "by prefill",
    "by decode",
    "held by decode",
    "computed tokens",
    "drifted",
    "TTFT p50",
)
_MAX_MISSES = 10


def show(account: Account, console: Console) -> None:
    """Print the table, the first misses and failures, and the verdict."""
    load = account.load
    table = Table(
        title=f"{account.name}: {load.chats} chats of {load.turns} turns, {load.at_once} at once, "
        f"temperature {load.temperature:g}, pages of {account.page_size} tokens",
        title_justify="left",
    )
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for row in (*account.rows, account.total):
        table.add_row(*_cells(row, account.page_size))
    console.print(table)
    for line in _notes(account):
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    style = "green" if account.is_whole else "red"
    console.print(verdict(account), style=style, markup=False, soft_wrap=True)


def verdict(account: Account) -> str:
    """One line: pages expected and found."""
    total = account.total
    return (
        f"{account.name}: expected {total.expected} pages, found {total.found}, "
        f"missed {total.expected - total.found}; {len(account.turns)} answers in "
        f"{account.duration_s:.0f} s, {len(account.failures)} failed"
    )


def _cells(row: Row, page_size: int) -> Sequence[str]:
    s = row.sources
    pages = (s.device, s.host, s.storage, s.storage_by_prefill, s.storage_by_decode)
    return (
        row.name,
        str(len(row.counts)),
        str(row.expected),
        str(row.found),
        *(str(tokens // page_size) for tokens in pages),
        str(s.transfer_skipped // page_size),
        str(s.computed),
        str(row.drifted),
        f"{row.ttft_s * 1000:.0f} ms",
    )


def _notes(account: Account) -> Sequence[str]:
    misses = account.misses()
    lines = [why(count, account.page_size) for count in misses[:_MAX_MISSES]]
    if len(misses) > _MAX_MISSES:
        lines.append(f"... and {len(misses) - _MAX_MISSES} more turns with missing pages")
    lines += [
        f"failed: chat {f.conversation}, turn {f.turn}: {f.kind}: {f.message}"
        for f in account.failures[:_MAX_MISSES]
    ]
    if account.num_short:
        lines.append(f"{account.num_short} answers have fewer than four pages")
    return lines
