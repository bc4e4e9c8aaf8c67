"""Writes host pages to L3 on a thread of its own; the loop collects what became of them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import NamedTuple

from kvloop.shared_cache.hicache_parts import HostRun
from kvloop.shared_cache.page_store import PageStore


class Written(NamedTuple):
    """One page of the run: whether L3 has it now."""

    run: HostRun
    results: Sequence[bool]


class StorageWriter:
    """Runs are written in the order they came; the store bounds each call by its own deadline."""

    def __init__(self, store: PageStore) -> None:
        self._store = store
        self._queue: queue.SimpleQueue[HostRun | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Written] = queue.SimpleQueue()
        self._num_submitted = 0
        self._num_collected = 0
        self._thread = threading.Thread(target=self._serve, daemon=True, name="l3-writer")
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Pages submitted and not yet collected."""
        return self._num_submitted - self._num_collected

    def submit(self, run: HostRun) -> None:
        """Queue a run; never waits."""
        self._num_submitted += len(run.slots)
        self._queue.put(run)

    def collect(self) -> list[Written]:
        """What has been written, or given up, since the last call."""
        done = []
        while not self._done.empty():
            done.append(self._done.get())
        self._num_collected += sum(len(written.run.slots) for written in done)
        return done

    def close(self, timeout_s: float) -> None:
        """Write what is queued, within the deadline."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _serve(self) -> None:
        while (run := self._queue.get()) is not None:
            self._done.put(Written(run, self._store.save(run.page_keys, run.slots)))
