"""Canaries on demand: they take longer than a look, and run beside it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from kvloop.operator.errors import NodeError
from kvloop.operator.nodes.client import NodeClient

log = logging.getLogger(__name__)
_AGAIN_S = 10.0
"""At the earliest, after the last was begun."""


class Canaries:
    """One at a time for each cluster; what they find the routers tell at the next look."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._begun: dict[str, float] = {}

    def start(self, key: str, url: str, admin_key: str, timeout_s: float) -> bool:
        """Have a router run one; False where it is too early."""
        if key in self._tasks or self._clock() - self._begun.get(key, -_AGAIN_S) < _AGAIN_S:
            return False
        self._begun[key] = self._clock()
        task = asyncio.create_task(_run(url, admin_key, timeout_s))
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))
        return True

    async def close(self) -> None:
        """End those that run."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run(url: str, admin_key: str, timeout_s: float) -> None:
    try:
        async with NodeClient(admin_key=admin_key) as client:
            await client.run_canary(url, timeout_s)
    except NodeError as error:
        log.info("canary: %s", error)
