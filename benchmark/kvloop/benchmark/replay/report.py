"""A replay's outcomes, for the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from rich.table import Table

from kvloop.benchmark.replay.run import Outcome, Sizes

_COLUMNS = (
    "write policy",
    "policy",
    "device",
    "host",
    "storage",
    "computed",
    "hit rate",
    "reference",
    "CPU p50 ms",
    "p99 ms",
    "µs/page",
)


def table(sizes: Sizes, outcomes: Sequence[Outcome]) -> Table:
    """Shares are of all prompt tokens; `reference`: its hit rate, and whether all is equal."""
    title = f"working set {sizes.working_set} pages, L1 {sizes.l1}, L2 {sizes.l2}"
    shown = Table(title=title, title_justify="left")
    for column in _COLUMNS:
        justify: Literal["left", "right"] = "left" if "policy" in column else "right"
        shown.add_column(column, justify=justify, no_wrap=True)
    for outcome in outcomes:
        shown.add_row(*_cells(outcome))
    return shown


def to_json(sizes: Sizes, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """All that was measured."""
    return {
        "sizes": asdict(sizes),
        "outcomes": [
            {**asdict(outcome), "hit_rate": outcome.tokens.hit_rate, "is_equal": outcome.is_equal}
            for outcome in outcomes
        ],
    }


def _cells(outcome: Outcome) -> list[str]:
    tokens = outcome.tokens
    parts = (tokens.device, tokens.host, tokens.storage, tokens.computed)
    return [
        outcome.write_policy,
        outcome.policy,
        *(f"{part / tokens.total:.2%}" for part in parts),
        f"{tokens.hit_rate:.2%}",
        _verdict(outcome),
        f"{outcome.request_ms.p50:.2f}",
        f"{outcome.request_ms.p99:.2f}",
        f"{outcome.page_us:.1f}",
    ]


def _verdict(outcome: Outcome) -> str:
    rate = f"{outcome.expected.hit_rate:.2%}"
    if outcome.is_equal:
        return f"{rate} equal"
    if outcome.num_different:
        return f"{rate}, {outcome.num_different} requests differ"
    return f"{rate}, contents differ"
