"""Copies device pages into the host pool and stores them in the shared cache, off the loop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kvloop.engine.parts import NodeParts

_BATCH = 32

Stored = Callable[[bytes, bool], None]
"""Called on the writer's thread with a page's key and whether it is in the shared cache now."""


class _Item(NamedTuple):
    key: bytes
    slot: int


class PageWriter:
    """`submit` copies at once, so the device page may go; the store call runs on a thread."""

    def __init__(self, parts: NodeParts, stored: Stored) -> None:
        self._parts, self._stored = parts, stored
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._backlog = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, daemon=True, name="page-writer")
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Pages submitted and not yet stored or given up."""
        return self._backlog

    def submit(self, keys: Sequence[bytes], pages: Sequence[int]) -> int:
        """Copy as many pages as the host pool has room for; returns how many were taken."""
        if not self._parts.store.is_attached:
            return 0
        count = min(len(keys), self._parts.pool.num_free)
        slots = self._parts.pool.alloc(count) if count else None
        if not slots:
            return 0
        self._parts.mover.backup(pages[:count], slots).wait()
        with self._lock:
            self._backlog += count
        for key, slot in zip(keys, slots, strict=False):
            self._queue.put(_Item(key, slot))
        return count

    def close(self, timeout_s: float) -> None:
        """Store what is queued, within the deadline."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            batch = [item]
            while len(batch) < _BATCH and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    self._queue.put(None)
                    break
                batch.append(following)
            self._save(batch)

    def _save(self, batch: list[_Item]) -> None:
        slots = [item.slot for item in batch]
        done = self._parts.store.save([item.key for item in batch], slots)
        self._parts.pool.free(slots)
        for item, is_stored in zip(batch, done, strict=True):
            self._stored(item.key, is_stored)
        with self._lock:
            self._backlog -= len(batch)
