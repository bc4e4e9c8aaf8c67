"""What went to and came from L3, counted; the nodes' metrics read it."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from kvloop.shared_cache.page_object import Fault

StoragePath = Literal["prefetch", "write_through", "offload"]
PageResult = Literal["hit", "miss", "fault", "no_slot", "stored", "no_room", "unavailable"]
"""Of a load: hit, miss, fault, no_slot, unavailable; of a save: stored, no_room, no_slot,
unavailable. no_slot: the page found no place in the staging pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageCounts:
    """Totals since the start."""

    pages: Counter[tuple[StoragePath, PageResult]] = field(default_factory=Counter)
    num_bytes: Counter[tuple[StoragePath, PageResult]] = field(default_factory=Counter)
    """Of the pages that moved: hit, fault and stored."""
    seconds: dict[StoragePath, float] = field(default_factory=dict)
    """Spent in calls, sealing and checking included."""
    faults: Counter[str] = field(default_factory=Counter)
    """Objects not accepted, by page_object.Fault's values."""


class StorageCounters:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = StorageCounts()

    def add_pages(
        self, path: StoragePath, result: PageResult, num_pages: int, num_bytes: int = 0
    ) -> None:
        """Count pages of one result."""
        with self._lock:
            self._counts.pages[path, result] += num_pages
            self._counts.num_bytes[path, result] += num_bytes

    def add_seconds(self, path: StoragePath, seconds: float) -> None:
        """Count time spent."""
        with self._lock:
            self._counts.seconds[path] = self._counts.seconds.get(path, 0.0) + seconds

    def add_fault(self, fault: Fault) -> None:
        """Count an object that was not accepted."""
        with self._lock:
            self._counts.faults[fault.value] += 1

    def snapshot(self) -> StorageCounts:
        """A copy that will not change."""
        with self._lock:
            counts = self._counts
            return StorageCounts(
                pages=Counter(counts.pages),
                num_bytes=Counter(counts.num_bytes),
                seconds=dict(counts.seconds),
                faults=Counter(counts.faults),
            )
