"""Threads that go from one storage call to the next only when a test lets them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from memory_backend import eventually

from kvloop.prefill.storage_writer import StorageWriter, Written
from kvloop.shared_cache.hicache_parts import HostRun
from kvloop.shared_cache.page_store import PageStore
from kvloop.shared_cache.wire import Role

_LONGEST_S = 60.0


class _Task:
    """Work on a thread of its own, begun by its first `step`."""

    def __init__(self, gate: Gate, work: Callable[..., Any], args: tuple[object, ...]) -> None:
        self.future: Future[Any] = Future()
        self._gate, self._work, self._args = gate, work, args
        self._may_go, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    def step(self) -> None:
        """Let it go on to its next stop, or to its end."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        self._may_go.release()
        assert self._stands.acquire(timeout=_LONGEST_S), "a thread of the prefetch hangs"

    def stop_here(self) -> None:
        """On the thread: stand until the next step."""
        self._stands.release()
        assert self._may_go.acquire(timeout=_LONGEST_S), "the test has gone on without a thread"
        if self._gate.is_closed:
            raise SystemExit

    def _run(self) -> None:
        assert self._may_go.acquire(timeout=_LONGEST_S)
        self._gate.current.task = self
        try:
            if self._gate.is_closed:
                raise SystemExit
            self.future.set_result(self._work(*self._args))
        except BaseException as error:
            self.future.set_exception(error)
        self._stands.release()


class Gate:
    """All stops of one node; takes the place of `Workers` in the Prefetcher."""

    def __init__(self) -> None:
        self.current = threading.local()
        self.is_closed = False
        """The node has crashed: its threads go no further than their next stop."""
        self.save_permits = threading.Semaphore(0)
        self.tasks: list[_Task] = []
        """Not ended, oldest first."""

    def workers(self, num_threads: int, name: str) -> Gate:
        """As the constructor of `Workers`."""
        return self

    def submit(self, work: Callable[..., Any], *args: object) -> Future[Any]:
        """As that of `Workers`."""
        task = _Task(self, work, args)
        self.tasks.append(task)
        return task.future

    def stop(self) -> None:
        """As that of `Workers`."""

    def step(self, index: int) -> bool:
        """Move one thread on to its next storage call; False where there is none."""
        if not self.tasks:
            return False
        task = self.tasks[index % len(self.tasks)]
        task.step()
        self.tasks = [task for task in self.tasks if not task.future.done()]
        return True

    def stop_here(self) -> None:
        """Stand here, on a thread of this gate; others pass."""
        task = getattr(self.current, "task", None)
        if task is not None:
            task.stop_here()

    def close(self) -> None:
        """End all threads where they stand."""
        self.is_closed = True
        while self.step(0):
            pass


class GatedStore(PageStore):
    """Threads stand before a read and after it, and before a save."""

    gate: Gate

    def load(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[Role | None]:
        self.gate.stop_here()
        writers = super().load(keys, slots)
        self.gate.stop_here()
        return writers

    def save(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        assert self.gate.save_permits.acquire(timeout=_LONGEST_S)
        return [] if self.gate.is_closed else super().save(keys, slots)


class WatchedWriter(StorageWriter):
    """Knows the runs that it has; saves one when told to."""

    _done: queue.SimpleQueue[Written]

    def __init__(self, store: PageStore) -> None:
        assert isinstance(store, GatedStore)
        self.gate = store.gate
        self.runs: list[HostRun] = []
        """Submitted and not collected."""
        super().__init__(store)

    def submit(self, run: HostRun) -> None:
        self.runs.append(run)
        super().submit(run)

    def collect(self) -> list[Written]:
        done = super().collect()
        ended = [written.run for written in done]
        self.runs = [run for run in self.runs if not any(run is other for other in ended)]
        return done

    @property
    def num_unsaved(self) -> int:
        return len(self.runs) - self._done.qsize()

    def crash(self) -> None:
        """End the thread where it stands; the gate is closed."""
        self._queue.put(None)
        self.gate.save_permits.release(len(self.runs) + 1)

    def save_next(self) -> bool:
        """Let the thread save one run, and wait for it; False where there is none."""
        if not self.num_unsaved:
            return False
        before = self._done.qsize()
        self.gate.save_permits.release()
        for _ in range(100):  # mostly it takes no longer
            if self._done.qsize() > before:
                return True
            time.sleep(0)
        assert eventually(lambda: self._done.qsize() > before), "the writer's thread hangs"
        return True
