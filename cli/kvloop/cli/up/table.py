"""What the chat showed, as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from kvloop.cli.up.chat import Turn
from kvloop.cli.up.pages import PageCount

_COLUMNS = (
    "turn",
    "prompt",
    "computed",
    "L1 device",
    "L2 host",
    "L3 storage",
    "by prefill",
    "by decode",
    "transfer skipped",
    "answer",
    "TTFT",
    "tokens/s",
)


def turns_table(turns: Sequence[Turn]) -> Table:
    """One row a turn; all but the last two columns count tokens."""
    table = Table(title="where each prompt token's KV came from (tokens)", title_justify="left")
    for column in _COLUMNS:
        table.add_column(column, justify="right")
    for number, turn in enumerate(turns, 1):
        table.add_row(str(number), *_row(turn))
    return table


def _row(turn: Turn) -> list[str]:
    usage = turn.usage
    counts = (
        usage.prompt_tokens,
        usage.computed,
        usage.device,
        usage.host,
        usage.storage,
        usage.by_prefill,
        usage.by_decode,
        usage.transfer_skipped,
        usage.completion_tokens,
    )
    return [*map(str, counts), f"{turn.ttft_s * 1000:.0f} ms", f"{turn.tokens_per_s:.1f}"]


def pages_table(expected: PageCount, found: PageCount, page_size: int) -> Table:
    """Expected pages beside those that turn 2 read from the shared cache."""
    title = f"pages that turn 2 read from the shared cache (pages of {page_size} tokens)"
    table = Table(title=title, title_justify="left")
    for column in ("written by", "expected", "found", ""):
        table.add_column(column, justify="left" if column == "written by" else "right")
    for role, want, got in (
        ("prefill (turn 1's prompt)", expected.prefill, found.prefill),
        ("decode (turn 1's answer)", expected.decode, found.decode),
    ):
        table.add_row(role, str(want), str(got), "ok" if got >= want else "missing")
    return table
