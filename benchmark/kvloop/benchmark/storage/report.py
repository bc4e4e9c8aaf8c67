"""The table, and the JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from kvloop.benchmark.storage.exists import ExistsTimes
from kvloop.benchmark.storage.load import StorageLoad
from kvloop.benchmark.storage.measure import Run
from kvloop.benchmark.storage.result import Row

SCHEMA = "kvloop.bench.storage/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageReport:
    """Everything that was measured; no configuration, which may hold secrets."""

    backend: str
    load: StorageLoad
    limit: str
    rows: Sequence[Row]
    exists: ExistsTimes
    runs: Sequence[Run]
    stats: dict[str, float]
    """The backend's own counters at the end."""

    def as_json(self) -> dict[str, Any]:
        """JSON-like."""
        machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "os": platform.system()}
        return {"schema": SCHEMA, "hardware": machine, **asdict(self)}


def show(report: StorageReport, console: Console) -> None:
    """Print the rates beside the limit's, and what went wrong."""
    console.print(_table(report))
    e = report.exists
    console.print(
        f"exists of {e.num_keys} keys, {e.num_found} of them stored: median {e.median_ms:.1f} ms, "
        f"at most {e.max_ms:.1f} ms",
        soft_wrap=True,
    )
    for row in report.rows:
        if row.pages_missed:
            console.print(
                f"{row.arm}, {row.phase}: {row.pages_missed} pages were not moved (no room, or a "
                "fault: see the stats in --json); its rate counts only those that were",
                style="yellow",
                soft_wrap=True,
            )


def _table(report: StorageReport) -> Table:
    load = report.load
    title = (
        f"{report.backend}: {load.num_batches} batches of {load.pages_per_batch} pages of "
        f"{load.page_bytes} bytes, {load.threads} at once, {load.rounds} rounds"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("phase")
    table.add_column("arm")
    for column in ("MB/s", f"of {report.limit}", "call p50 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for i, row in enumerate(report.rows):
        is_last = i + 1 == len(report.rows) or report.rows[i + 1].phase != row.phase
        table.add_row(row.phase, row.arm, *_cells(row), end_section=is_last)
    return table


def _cells(row: Row) -> tuple[str, ...]:
    share = "limit" if row.share_of_limit is None else f"{row.share_of_limit:.0%}"
    return f"{row.bytes_per_s / 1e6:.0f}", share, f"{row.call_p50_ms:.1f}", f"{row.call_p99_ms:.1f}"
