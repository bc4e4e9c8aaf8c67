"""Shows what `kvloop up` waits for: a live list on a terminal, one line each elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from kvloop.cli.up.child import Child
from kvloop.cli.up.plan import Part


class StartProgress:
    """A context manager; call `report` on every look at a part."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, tuple[Child, float | None]] = {}
        self._spinner = Spinner("dots")
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=8)

    def __enter__(self) -> StartProgress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def report(self, part: Part, child: Child, is_ready: bool) -> None:
        """Note a part's state; off a terminal, print its start and its readiness."""
        is_new = part.name not in self._rows
        self._rows[part.name] = (child, child.age_s if is_ready else None)
        if self._console.is_terminal:
            return
        if is_new:
            self._console.print(
                f"starting {part.name} (pid {child.pid}, log {child.log})", soft_wrap=True
            )
        if is_ready:
            self._console.print(f"{part.name} is ready after {child.age_s:.1f} s")

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for _ in range(3):
            table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for name, (child, ready_s) in self._rows.items():
            if ready_s is None:
                doing = " ".join(child.last_lines(1)) or "starting"
                table.add_row(self._spinner, name, f"{child.age_s:.0f} s", Text(doing, style="dim"))
            else:
                table.add_row("[green]✓[/]", name, f"{ready_s:.1f} s", "ready")
        return table
