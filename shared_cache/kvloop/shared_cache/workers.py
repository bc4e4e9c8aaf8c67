"""A small pool of daemon threads: unlike the standard one it never holds up the process's exit.

Storage calls can hang for ever in the kernel or in a client library; the process must end anyway.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")


class Workers:
    """`num_threads` threads that take work in order; `stop` lets them end once it is done."""

    def __init__(self, num_threads: int, name: str) -> None:
        self._queue: SimpleQueue[_Task | None] = SimpleQueue()
        self._num_threads = num_threads
        for i in range(num_threads):
            threading.Thread(target=self._work, name=f"{name}-{i}", daemon=True).start()

    def submit(self, work: Callable[..., Result], *args: object) -> Future[Result]:
        """Queue a call; its future can be cancelled until a thread takes it."""
        future: Future[Result] = Future()
        self._queue.put(_Task(future, work, args))
        return future

    def map(self, work: Callable[..., Result], *batch: Sequence[object]) -> list[Result]:
        """Call `work` for each entry; returns or raises only after every call has ended."""
        futures = [self.submit(work, *args) for args in zip(*batch, strict=True)]
        wait(futures)
        return [future.result() for future in futures]

    def stop(self) -> None:
        """End the threads after the work that is queued; does not wait for them."""
        for _ in range(self._num_threads):
            self._queue.put(None)

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            task.run()
            del task  # keeps nothing of the last call alive while idle


class _Task:
    __slots__ = ("args", "future", "work")

    def __init__(self, future: Future[Any], work: Callable[..., Any], args: Any) -> None:
        self.future = future
        self.work = work
        self.args = args

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.work(*self.args)
        except BaseException as error:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)
