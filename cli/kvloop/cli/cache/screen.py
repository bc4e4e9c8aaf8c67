"""Where the commands write: tables and sums to stdout, progress to stderr, one object as JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from kvloop.cli.cache.words import bytes_words, pages_words

_WIDE = 200  # columns, where it is no terminal whose width is known
_BETWEEN_LINES_S = 10.0


def console() -> Console:
    """For tables; wide where the output is a file or a pipe."""
    is_known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if is_known else _WIDE, highlight=False)


def print_json(value: Mapping[str, Any]) -> None:
    """One object, on one line."""
    print(json.dumps(value), flush=True)


def note(text: str) -> None:
    """A line for people that is no result."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def only_our_words() -> Iterator[None]:
    """Keep what client libraries write to stderr off the screen: it would tear tables and bars.

    Mooncake's logs errors even where all is well. Not where the user has set its log level.
    """
    if "MC_LOG_LEVEL" in os.environ or not _is_plain_stderr():
        yield
        return
    ours, theirs = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(theirs, 2)
    previous, sys.stderr = sys.stderr, os.fdopen(ours, "w", 1, closefd=False)
    try:
        yield
    finally:
        sys.stderr = previous
        os.dup2(ours, 2)
        os.close(ours)
        os.close(theirs)


def _is_plain_stderr() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.fileno() == 2
    except (OSError, ValueError):
        return False


class Meter:
    """Counts what a command has done; `advance` is told of it."""

    def __init__(self, total_pages: int) -> None:
        self.total_pages = total_pages
        self.num_pages = 0
        self.num_bytes = 0

    def advance(self, num_pages: int, num_bytes: int) -> None:
        """These pages are done, and so many bytes moved for them."""
        self.num_pages += num_pages
        self.num_bytes += num_bytes


@contextmanager
def meter(what: str, num_pages: int, page_bytes: int) -> Iterator[Meter]:
    """A bar with rate and time left on a terminal; elsewhere a line each ten seconds."""
    if not sys.stderr.isatty():
        yield _Lines(what, num_pages)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[pages]}"),
        _Rate(table_column=Column(no_wrap=True, justify="right")),
        TimeRemainingColumn(compact=True),
    )
    screen = Console(stderr=True)
    with Progress(*columns, console=screen, transient=True, expand=True) as progress:
        yield _Bar(progress, what, num_pages, page_bytes)


class _Rate(ProgressColumn):
    """Bytes moved, and how many a second."""

    def render(self, task: Task) -> Text:
        rate = task.finished_speed or task.speed or 0.0
        return Text(f"{bytes_words(task.completed)} {bytes_words(rate)}/s")


class _Bar(Meter):
    def __init__(self, progress: Progress, what: str, num_pages: int, page_bytes: int) -> None:
        super().__init__(num_pages)
        self._progress, self._page_bytes = progress, page_bytes
        self._task = progress.add_task(what, total=num_pages * page_bytes, pages="")

    def advance(self, num_pages: int, num_bytes: int) -> None:
        super().advance(num_pages, num_bytes)
        # Pages that need not be moved shorten the way that is left.
        left = (self.total_pages - self.num_pages) * self._page_bytes
        self._progress.update(
            self._task,
            completed=self.num_bytes,
            total=self.num_bytes + left,
            pages=f"{self.num_pages:,}/{self.total_pages:,}",
        )


class _Lines(Meter):
    def __init__(self, what: str, num_pages: int) -> None:
        super().__init__(num_pages)
        self._what = what
        self._started = self._said = time.monotonic()

    def advance(self, num_pages: int, num_bytes: int) -> None:
        super().advance(num_pages, num_bytes)
        now = time.monotonic()
        if now - self._said >= _BETWEEN_LINES_S:
            self._said = now
            rate = bytes_words(self.num_bytes / (now - self._started))
            note(
                f"{self._what}: {self.num_pages:,} of {pages_words(self.total_pages)}, "
                f"{bytes_words(self.num_bytes)} moved, {rate}/s"
            )
