"""Numbers in a terminal, whatever its width."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text

_LOG_WIDTH = 100
_AROUND = 2
"""Blanks beside each cell: what stands between two of them, or at the table's edges."""


def new_console() -> Console:
    """As wide as the terminal; a log, which has no width, gets 100 columns."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_LOG_WIDTH)


class FittedTable:
    """Numbers to the right, no wider than they need, and none cut; nothing is markup.

    Columns for which the console has no room go on below, beside the first column again.
    """

    def __init__(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        styles: Sequence[str] = (),
    ) -> None:
        """`styles`: one a row, if any."""
        self._columns, self._rows, self._styles = columns, rows, styles

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from (self._table(chosen) for chosen in self._parts(options.max_width))

    def _parts(self, width: int) -> Iterator[list[int]]:
        """Numbers of the columns that stand side by side; the first is in each."""
        part, used = [0], self._width(0)
        for number in range(1, len(self._columns)):
            needed = self._width(number)
            if len(part) > 1 and used + needed > width:
                yield part
                part, used = [0], self._width(0)
            part.append(number)
            used += needed
        yield part

    def _width(self, column: int) -> int:
        texts = (self._columns[column], *(row[column] for row in self._rows))
        return _AROUND + max(map(cell_len, texts))

    def _table(self, chosen: Sequence[int]) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
        for number in chosen:
            side: JustifyMethod = "right" if number else "left"
            table.add_column(Text(self._columns[number]), justify=side, no_wrap=True)
        for number, row in enumerate(self._rows):
            style = self._styles[number] if self._styles else None
            table.add_row(*(Text(row[each]) for each in chosen), style=style)
        return table
