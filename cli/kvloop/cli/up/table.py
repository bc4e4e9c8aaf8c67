"""What the chat showed, as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table

from kvloop.cli.up.chat import Turn
from kvloop.cli.up.pages import PageCount


def turns_table(turns: Sequence[Turn]) -> Table:
    """One column a turn, so that it fits the narrowest terminal."""
    table = Table(title="prompt tokens by where their KV came from", title_justify="left")
    table.add_column("")
    for number in range(1, len(turns) + 1):
        table.add_column(f"turn {number}", justify="right")
    for name, cell in _ROWS:
        table.add_row(name, *(cell(turn) for turn in turns))
        if name in _LAST_OF_SECTION:
            table.add_section()
    return table


_ROWS: tuple[tuple[str, Callable[[Turn], str]], ...] = (
    ("prompt tokens", lambda turn: str(turn.usage.prompt_tokens)),
    ("  computed by prefill", lambda turn: str(turn.usage.computed)),
    ("  cached: device (L1)", lambda turn: str(turn.usage.device)),
    ("  cached: host (L2)", lambda turn: str(turn.usage.host)),
    ("  cached: shared (L3)", lambda turn: str(turn.usage.storage)),
    ("    written by prefill", lambda turn: str(turn.usage.by_prefill)),
    ("    written by decode", lambda turn: str(turn.usage.by_decode)),
    ("  transfer skipped", lambda turn: str(turn.usage.transfer_skipped)),
    ("answer tokens", lambda turn: str(turn.usage.completion_tokens)),
    ("time to first token", lambda turn: f"{turn.ttft_s * 1000:.0f} ms"),
    ("tokens/s after it", lambda turn: f"{turn.tokens_per_s:.1f}"),
    ("fallback", lambda turn: turn.usage.fallback or "none"),
)
_LAST_OF_SECTION = ("  transfer skipped",)


def pages_table(expected: PageCount, found: PageCount, page_size: int) -> Table:
    """Expected pages beside those that turn 2 read from the shared cache."""
    title = f"pages of {page_size} tokens that turn 2 read from L3"
    table = Table(title=title, title_justify="left")
    for column in ("written by", "expected", "found", ""):
        table.add_column(column, justify="left" if column == "written by" else "right")
    for role, want, got in (
        ("prefill: turn 1's prompt", expected.prefill, found.prefill),
        ("decode: turn 1's answer", expected.decode, found.decode),
    ):
        table.add_row(role, str(want), str(got), "ok" if got >= want else "missing")
    return table
