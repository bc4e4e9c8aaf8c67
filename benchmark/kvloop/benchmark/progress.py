"""Shows a run as it goes: a live table on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Event, Lock, Thread
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from kvloop.benchmark.arms import Arm, Segment
from kvloop.benchmark.page import units
from kvloop.benchmark.results.document import SegmentResult
from kvloop.benchmark.sample import Failure, Sample
from kvloop.benchmark.tally import Tally
from kvloop.benchmark.workloads.plan import Workload

REFRESH_PER_S = 1.0
"""Each picture takes some milliseconds of the interpreter that drives the load."""
LINE_EVERY_S = 10.0
MOST_ERRORS = 5
MOST_ERRORS_OF_A_LINE = 2
BAR = 30
"""Characters of the bar."""


class LiveProgress:
    """A context manager and the driver's Listener.

    Off a terminal it prints a line every `line_every_s`, also while no request ends: a Job's log
    shows that it lives.
    """

    def __init__(
        self,
        console: Console,
        workload: Workload,
        segments: Sequence[Segment],
        *,
        line_every_s: float = LINE_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._tally = Tally(workload, segments, clock)
        self._lock = Lock()
        self._live = Live(
            get_renderable=self.picture,
            console=console,
            refresh_per_second=REFRESH_PER_S,
            transient=True,
        )
        self._line_every_s = line_every_s
        self._is_over = Event()
        self._lines = Thread(target=self._print_lines, name="bench-progress", daemon=True)

    def __enter__(self) -> LiveProgress:
        if self._console.is_terminal:
            self._live.start()
        else:
            self._lines.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()
            return
        with self._lock:
            self._tally.end()
        self._is_over.set()
        self._lines.join(timeout=5.0)
        self._print(self.line())

    def began(self, segment: Segment) -> None:
        with self._lock:
            self._tally.began(segment)

    def sent(self) -> None:
        with self._lock:
            self._tally.sent()

    def outcome(self, outcome: Sample | Failure) -> None:
        with self._lock:
            self._tally.outcome(outcome)

    def ended(self, result: SegmentResult) -> None:
        with self._lock:
            self._tally.ended(result)

    def picture(self) -> Text:
        """What the terminal shows now."""
        with self._lock:
            return _picture(self._tally)

    def line(self) -> str:
        """What is printed off a terminal now."""
        with self._lock:
            return _line(self._tally)

    def _print_lines(self) -> None:
        while not self._is_over.wait(self._line_every_s):
            self._print(self.line())

    def _print(self, line: str) -> None:
        try:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        except (OSError, SystemExit):  # rich exits where nobody reads; what is measured goes on
            self._is_over.set()


def _picture(tally: Tally) -> Text:
    # One text by hand: a table of rich's takes five times as long, of the driver's interpreter.
    text = Text(no_wrap=True, overflow="ellipsis")
    full = BAR * tally.over // max(1, tally.planned)
    text.append("█" * full, "green").append("░" * (BAR - full), "bright_black")
    text.append(f"  {_counts(tally)}\n{_where(tally)}\n")
    text.append(
        _row("arm", "answered", "failed", "TTFT median", "hit rate", "output tok/s"), "bold"
    )
    for arm in tally.arms:
        text.append("\n" + _row(arm, *_cells(tally, arm)))
    if tally.errors:
        text.append(f"\nerrors: {_errors(tally)}", "red")
    return text


def _row(name: str, *cells: str) -> str:
    return f"{name:9}" + "".join(f"{cell:>14}" for cell in cells)


def _cells(tally: Tally, arm: Arm) -> tuple[str, ...]:
    shown, rate = tally.arms[arm], tally.output_rate(arm)
    return (
        str(shown.answered),
        str(shown.failed),
        _median(shown.ttft_median_s),
        units.share(shown.hit_rate),
        "-" if rate is None else units.digits(rate),
    )


def _counts(tally: Tally) -> str:
    return (
        f"{tally.answered} of {tally.planned} requests, {tally.in_flight} in flight, "
        f"{tally.failed} failed, {_clock_text(tally.elapsed_s)}{_remaining(tally)}"
    )


def _remaining(tally: Tally) -> str:
    remaining = tally.remaining_s
    return f", about {_clock_text(remaining)} to go" if remaining else ""


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _where(tally: Tally) -> str:
    segment = tally.segment
    if segment is None:
        if tally.over == tally.planned:
            return "done"
        if tally.is_over:
            return "ended early"
        return "between two arms" if tally.over else "warming up"
    parts = [f"arm {segment.arm}"]
    if tally.num_steps > 1:
        rate = "" if segment.rate is None else f" ({units.tick(segment.rate)} requests/s)"
        parts.append(f"step {segment.step + 1} of {tally.num_steps}{rate}")
    parts.append(f"round {segment.round + 1} of {tally.num_rounds}")
    return ", ".join(parts)


def _median(seconds: float | None) -> str:
    return units.duration(None if seconds is None else 1000 * seconds)


def _errors(tally: Tally, most: int = MOST_ERRORS) -> str:
    shown = [f"{kind} {num}" for kind, num in tally.errors.most_common(most)]
    others = len(tally.errors) - len(shown)
    return ", ".join([*shown, f"{others} other kinds"] if others > 0 else shown)


def _line(tally: Tally) -> str:
    """Of the arm under way alone: four arms would fill several lines of a log."""
    place = _where(tally)
    if tally.segment is not None:
        place = f"{place}: {_arm_words(tally, tally.segment.arm)}"
    parts = [_counts(tally), place]
    if tally.errors:
        parts.append(f"errors: {_errors(tally, MOST_ERRORS_OF_A_LINE)}")
    return "; ".join(parts).replace(units.SPACE, " ")


def _arm_words(tally: Tally, arm: Arm) -> str:
    shown, rate = tally.arms[arm], tally.output_rate(arm)
    words = f"TTFT median {_median(shown.ttft_median_s)}"
    if shown.hit_rate is not None:
        words += f", hit rate {units.share(shown.hit_rate)}"
    return words if rate is None else f"{words}, {units.digits(rate)} output tokens/s"
