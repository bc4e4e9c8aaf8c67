"""By how much the event loop is late, sampled while that counts, in bounded memory."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from kvloop.benchmark.results.document import Spread

_EVERY_S = 0.01
_LEAST_S = 1e-5
_STEPS = 100
"""Classes for each factor of ten: a quantile is off by at most 2.4 %."""
_MOST_S = 1000.0


class LagHistogram:
    """Counts lags in classes whose width grows with them."""

    def __init__(self) -> None:
        self._counts = [0] * (math.ceil(math.log10(_MOST_S / _LEAST_S) * _STEPS) + 1)
        self._num, self._sum_s, self._max_s = 0, 0.0, 0.0

    def add(self, lag_s: float) -> None:
        """Count one; what is below 10 us counts as that."""
        lag_s = min(max(lag_s, _LEAST_S), _MOST_S)
        self._counts[math.ceil(math.log10(lag_s / _LEAST_S) * _STEPS)] += 1
        self._num += 1
        self._sum_s += lag_s
        self._max_s = max(self._max_s, lag_s)

    def spread(self) -> Spread | None:
        """In milliseconds; None of no lag."""
        if not self._num:
            return None
        return Spread(
            mean=self._sum_s / self._num * 1000,
            p50=self._quantile_ms(0.5),
            p90=self._quantile_ms(0.9),
            p99=self._quantile_ms(0.99),
            max=self._max_s * 1000,
        )

    def _quantile_ms(self, q: float) -> float:
        below = 0
        for index, count in enumerate(self._counts):
            below += count
            if below >= q * self._num:
                return min(_LEAST_S * 10 ** (index / _STEPS), self._max_s) * 1000
        return self._max_s * 1000


class LagMonitor:
    """A context that asks the running loop for a call every 10 ms, and notes when it comes.

    A loop that is blocked for a second would be noted once, though whatever came in that second had
    to wait: the calls that it could not even be asked for are noted too, each 10 ms less late.
    Nothing is noted where `is_busy` is false both when it asks and when it is called: pauses and
    thinking would hide what was late while it counted.
    """

    def __init__(self, is_busy: Callable[[], bool] = lambda: True) -> None:
        self.lags = LagHistogram()
        self._is_busy, self._was_busy = is_busy, False
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def __enter__(self) -> Self:
        self._ask()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While others may block the loop: what they take is no lag of the load's."""
        self._stop()
        try:
            yield
        finally:
            self._ask()

    def _stop(self) -> None:
        assert self._timer is not None
        self._timer.cancel()

    def _ask(self) -> None:
        self._was_busy = self._is_busy()
        self._due = time.monotonic() + _EVERY_S
        self._timer = asyncio.get_running_loop().call_later(_EVERY_S, self._note)

    def _note(self) -> None:
        lag_s = time.monotonic() - self._due
        if self._was_busy or self._is_busy():
            for missed in range(1 + int(min(lag_s, _MOST_S) / _EVERY_S)):
                self.lags.add(lag_s - missed * _EVERY_S)
        self._ask()
