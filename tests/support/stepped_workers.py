"""Threads that are none: work is done when the test says so, on its own thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class SteppedWorkers:
    """Takes the place of `shared_cache.workers.Workers`."""

    def __init__(self, num_threads: int, name: str) -> None:
        self.name = name
        self._tasks: deque[tuple[Future[Any], Callable[..., Any], tuple[object, ...]]] = deque()

    def submit(self, work: Callable[..., Any], *args: object) -> Future[Any]:
        future: Future[Any] = Future()
        self._tasks.append((future, work, args))
        return future

    def step(self) -> bool:
        """Do what was asked first; False where nothing is left."""
        if not self._tasks:
            return False
        future, work, args = self._tasks.popleft()
        try:
            future.set_result(work(*args))
        except Exception as error:
            future.set_exception(error)
        return True

    def stop(self) -> None:
        """As that of `Workers`."""
