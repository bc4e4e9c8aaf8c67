"""Ends a request that takes too long as a whole, or is silent for too long."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Self

from kvloop.benchmark.driver.bad_answer import BadAnswer


class Patience:
    """An async context: raises BadAnswer `timeout` or `stalled` inside.

    A new byte costs one assignment: a timer looks at the last one's time when it is due, instead of
    being moved by each.
    """

    def __init__(self, timeout_s: float, stall_timeout_s: float) -> None:
        self._timeout_s, self._stall_s = timeout_s, stall_timeout_s
        self._limit = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None
        self._has_stalled = False
        self._deadline = 0.0
        self.heard_at = 0.0
        """When the last byte came; the caller writes it."""

    async def __aenter__(self) -> Self:
        self.heard_at = time.monotonic()
        self._deadline = self.heard_at + self._timeout_s
        await self._limit.__aenter__()
        self._look()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._timer is not None
        self._timer.cancel()
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError as timeout:
            raise self._explain() from timeout

    def _look(self) -> None:
        now = time.monotonic()
        silent_until = self.heard_at + self._stall_s
        due = min(self._deadline, silent_until)
        loop = asyncio.get_running_loop()
        if now < due:
            self._timer = loop.call_later(due - now, self._look)
            return
        self._has_stalled = silent_until <= self._deadline
        self._limit.reschedule(loop.time())

    def _explain(self) -> BadAnswer:
        if self._has_stalled:
            return BadAnswer("stalled", f"the stream was silent for {self._stall_s:g} s")
        return BadAnswer("timeout", f"no whole answer in {self._timeout_s:g} s")
