"""The account on file systems that several machines share: walks over the files, and no index.

SQLite's locks and shared maps do not hold between machines. One process at a time, by a lease in
a small file, walks over all files each minute, removes the oldest where little room is left, and
writes down their sum. Every process adds what it has written since, and refuses to write beyond
the capacity. Times of last use are the files' own: readers set them, at most once a minute each.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence

from kvloop.shared_cache.backends.directory.account import Account, ObjectId
from kvloop.shared_cache.backends.directory.evict import remove_object
from kvloop.shared_cache.backends.directory.faults import Counts, ObjectFaults
from kvloop.shared_cache.backends.directory.layout import Layout
from kvloop.shared_cache.backends.directory.listing import list_objects
from kvloop.shared_cache.backends.directory.root import OpenRoot, StoreRoot
from kvloop.shared_cache.backends.directory.ticker import Ticker
from kvloop.shared_cache.backends.directory.walk_state import WalkState, read_state, write_state

WALK_EVERY_S = 60.0
LOOK_EVERY_S = 5.0
"""Between looks at what other processes have written down; also between a claim and its walk."""
_LEASE_S = 60.0
_TOUCH_AGAIN_S = 60.0
_MAX_TOUCHED = 1 << 20
_MAX_REMOVED = 16384  # objects, by one walk
_FULL_FROM = 15 / 16  # of the capacity: from here a walk removes ...
_FULL_TO = 7 / 8  # ... down to here


class WalkAccount(Account):
    """See the module.

    The bound is passed by what other processes write between two looks at the sum, and before the
    first walk by what was there.
    """

    def __init__(self, root: StoreRoot, capacity_bytes: int) -> None:
        self._root = root
        self._capacity = capacity_bytes
        self._id = secrets.token_hex(8)
        self._lock = threading.Lock()
        self._state = WalkState()
        self._written: list[tuple[float, int]] = []
        self._touched: dict[ObjectId, float] = {}
        self._to_touch: list[ObjectId] = []
        self._object_bytes = 0
        self._look_at = 0.0
        self._counts = Counts("evicted", "evicted_bytes", "walks")
        self._ticker = Ticker(self._tick, "l3-account")

    def reserve(self, root: OpenRoot, objects: Sequence[ObjectId], num_bytes: int) -> list[bool]:
        self._ticker.start()
        with self._lock:
            self._object_bytes = num_bytes
            room = max(0, self._capacity - self._sum())
            num_granted = min(len(objects), room // num_bytes)
            self._written.append((time.time(), num_granted * num_bytes))
        return [i < num_granted for i in range(len(objects))]

    def settle(self, stored: Sequence[ObjectId], failed: Sequence[ObjectId]) -> None:
        self._give_back(len(failed))

    def touch(self, objects: Sequence[ObjectId]) -> None:
        self._ticker.start()
        now = time.monotonic()
        with self._lock:
            if len(self._touched) > _MAX_TOUCHED:
                self._touched.clear()
            for item in objects:
                if now - self._touched.get(item, -_TOUCH_AGAIN_S) >= _TOUCH_AGAIN_S:
                    self._touched[item] = now
                    self._to_touch.append(item)

    def removed(self, objects: Sequence[ObjectId]) -> None:
        self._give_back(len(objects))

    def cleared(self, namespace: bytes) -> None:
        """The next walk finds it."""

    def ran_full(self, root: OpenRoot, num_bytes: int) -> None:
        """The next walk removes what is above the capacity; that is all that is known here."""

    def used_at(self, objects: Sequence[ObjectId]) -> dict[ObjectId, float]:
        return {}

    def stats(self) -> dict[str, float]:
        sizes = {"capacity_bytes": float(self._capacity), "used_bytes": float(self._sum())}
        return self._counts.snapshot() | sizes

    def close(self) -> None:
        self._ticker.stop()

    def _give_back(self, num_objects: int) -> None:
        with self._lock:
            self._written.append((time.time(), -num_objects * self._object_bytes))

    def _sum(self) -> int:
        """What the last walk found, and what this process has written since."""
        since = self._state.walked_at
        return self._state.num_bytes + sum(size for at, size in self._written if at >= since)

    # --- each second ----------------------------------------------------------------------------

    def _tick(self) -> None:
        with contextlib.suppress(OSError), self._root.open() as root:
            self._write_times(root)
            if time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + LOOK_EVERY_S
                self._look(root)

    def _write_times(self, root: OpenRoot) -> None:
        with self._lock:
            items, self._to_touch = self._to_touch, []
        for item in items:
            with contextlib.suppress(OSError):
                self._write_time(root, item)

    def _write_time(self, root: OpenRoot, item: ObjectId) -> None:
        layout = Layout(item.namespace)
        shard = root.directory(layout.shard(item.key))
        try:
            os.utime(layout.name(item.key, item.group), dir_fd=shard, follow_symlinks=False)
        finally:
            os.close(shard)

    def _look(self, root: OpenRoot) -> None:
        """Learn the sum; walk, if it is this process's turn; else claim the next turn."""
        state, now = read_state(root), time.time()
        with self._lock:
            self._state = state
            self._written = [entry for entry in self._written if entry[0] >= state.walked_at]
            is_full = self._sum() > self._capacity * _FULL_FROM
        if state.walker == self._id:
            self._walk(root)
        elif state.walker_until < now and (is_full or now - state.walked_at > WALK_EVERY_S):
            # Who claims it last is the one, and has learnt it by the next look.
            self._claim(root, state)

    def _claim(self, root: OpenRoot, state: WalkState) -> None:
        until = time.time() + _LEASE_S
        claim = WalkState(
            walker=self._id,
            walker_until=until,
            num_bytes=state.num_bytes,
            walked_at=state.walked_at,
        )
        write_state(root, claim, self._id)

    def _walk(self, root: OpenRoot) -> None:
        began_at, total, oldest = time.time(), 0, _Oldest(_MAX_REMOVED)
        claim_at = time.monotonic() + _LEASE_S / 2
        for item, num_bytes, used_at in self._objects(root):
            total += num_bytes
            oldest.add(item, num_bytes, used_at)
            if time.monotonic() > claim_at:
                self._claim(root, self._state)
                claim_at = time.monotonic() + _LEASE_S / 2
        if total > self._capacity * _FULL_FROM:
            total -= self._remove(root, oldest, total - int(self._capacity * _FULL_TO))
        self._counts.add("walks")
        state = WalkState(num_bytes=total, walked_at=began_at)
        write_state(root, state, self._id)
        with self._lock:
            self._state = state

    def _objects(self, root: OpenRoot) -> Iterator[tuple[ObjectId, int, float]]:
        for stored in list_objects(root, ObjectFaults(Counts.of_faults())):
            if self._ticker.is_stopped:
                raise InterruptedError("the store is being closed")
            if stored.key is not None:
                item = ObjectId(stored.namespace, stored.key, stored.group)
                yield item, stored.num_bytes, stored.used_at or 0.0

    def _remove(self, root: OpenRoot, oldest: _Oldest, excess: int) -> int:
        """Remove as much, the oldest first; returns how much it was."""
        freed = 0
        for item, num_bytes in oldest.in_order():
            if freed >= excess:
                break
            if remove_object(root, item):
                freed += num_bytes
                self._counts.add("evicted")
                self._counts.add("evicted_bytes", num_bytes)
        return freed


class _Oldest:
    """The oldest of all objects that are added, up to a number of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._heap: list[tuple[float, ObjectId, int]] = []

    def add(self, item: ObjectId, num_bytes: int, used_at: float) -> None:
        entry = (-used_at, item, num_bytes)  # the youngest is the heap's first
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    def in_order(self) -> Iterator[tuple[ObjectId, int]]:
        for _, item, num_bytes in sorted(self._heap, reverse=True):
            yield item, num_bytes
