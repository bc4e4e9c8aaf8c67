"""Takes keys from the queue and looks at them, a few at once."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable

from kvloop.operator.errors import OperatorError
from kvloop.operator.runtime.metrics import Metrics
from kvloop.operator.runtime.queue import Key, WorkQueue

log = logging.getLogger(__name__)
WORKERS = 8
IDLE_S = 5.0
"""A worker looks at the clock at least so often."""


class Workers:
    """Owns the queue. `add` from the loop's own thread only."""

    def __init__(self, look: Callable[[Key], Awaitable[float | None]], metrics: Metrics) -> None:
        self._look = look
        self._metrics = metrics
        self.queue = WorkQueue()
        self._changed = asyncio.Event()

    def add(self, keys: Iterable[Key], after_s: float = 0.0) -> None:
        """Look at these."""
        for key in keys:
            self.queue.add(key, time.monotonic(), after_s)
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled; a look that crashed is tried again, never the end."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            now = time.monotonic()
            self._metrics.depth.set(self.queue.depth(now))
            key = self.queue.take(now)
            if key is None:
                await self._wait(now)
            else:
                await self._one(key)

    async def _wait(self, now: float) -> None:
        due = self.queue.next_due()
        wait_s = IDLE_S if due is None else min(max(due - now, 0.0), IDLE_S)
        self._changed.clear()
        try:
            async with asyncio.timeout(wait_s):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _one(self, key: Key) -> None:
        begun = time.monotonic()
        try:
            after_s = await self._look(key)
        except (OperatorError, TimeoutError) as error:
            result = "timeout" if isinstance(error, TimeoutError) else "error"
            self._failed(key, f"{error or type(error).__name__}")
        except Exception:
            result = "crash"
            log.exception("%s: the look crashed", key)
            self._failed(key, "see above")
        else:
            result = "ok"
            self._done(key, after_s)
        self._metrics.reconciles.labels(key.kind, result).inc()
        self._metrics.seconds.labels(key.kind).observe(time.monotonic() - begun)
        self._changed.set()

    def _done(self, key: Key, after_s: float | None) -> None:
        if after_s is None:
            self.queue.forget(key, time.monotonic())
        else:
            self.queue.done(key, time.monotonic(), after_s)

    def _failed(self, key: Key, why: str) -> None:
        delay = self.queue.failed(key, time.monotonic(), random.random())
        log.warning("%s: again in %.1f s: %s", key, delay, why)
