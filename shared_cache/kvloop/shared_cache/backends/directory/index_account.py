"""The account that the processes of one machine share through an index on a local file system."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from kvloop.shared_cache.backends.directory.account import Account, ObjectId
from kvloop.shared_cache.backends.directory.evict import object_size, remove_object, up_to
from kvloop.shared_cache.backends.directory.faults import Counts
from kvloop.shared_cache.backends.directory.index import PENDING_S, Index, Row
from kvloop.shared_cache.backends.directory.index_file import IndexFile
from kvloop.shared_cache.backends.directory.reconcile import Reconciler
from kvloop.shared_cache.backends.directory.root import OpenRoot, StoreRoot
from kvloop.shared_cache.backends.directory.ticker import Ticker

Result = TypeVar("Result")
_WALK_S = 0.2  # of each second
_EVICT_AT_ONCE = 128
_HEADROOM = 64  # one such part of the capacity is kept free ahead of writers ...
_HEADROOM_FROM = 2048  # ... in stores of at least so many objects
_OWED = 16


class IndexAccount(Account):
    """Room is taken in the index before a file is written, so the bound is never passed.

    Whoever writes evicts what his own pages need, oldest first; a thread keeps a 64th of a large
    store free ahead of that, writes down each second what was used, and walks over the files
    where the index is new or a day old. While the index cannot be used, a process goes on to
    write up to a 16th of the capacity, and tells it later.
    """

    def __init__(self, root: StoreRoot, file: IndexFile, capacity_bytes: int | None) -> None:
        self._root = root
        self._file = file
        self._capacity = capacity_bytes
        self._lock = threading.Lock()
        """Guards the index, and what it is owed."""
        self._owed: dict[ObjectId, Row] = {}
        self._touch_lock = threading.Lock()
        self._touched: dict[ObjectId, float] = {}
        self._counts = Counts("evicted", "evicted_bytes")
        self._used_bytes = 0
        self._largest = 1
        self._reconciler = Reconciler(root, self._ask_locked)
        self._ticker = Ticker(self._tick, "l3-account")

    # --- what readers and writers say -----------------------------------------------------------

    def reserve(self, root: OpenRoot, objects: Sequence[ObjectId], num_bytes: int) -> list[bool]:
        self._ticker.start()
        self._largest = max(self._largest, num_bytes)
        most = len(objects) if self._capacity is None else self._capacity // num_bytes
        with self._lock:
            num_granted = self._reserve(root, objects[:most], num_bytes)
        return [i < num_granted for i in range(len(objects))]

    def settle(self, stored: Sequence[ObjectId], failed: Sequence[ObjectId]) -> None:
        with self._lock:
            if stored:
                self._ask(lambda index: index.confirm(stored))
            if failed:
                self._ask(lambda index: index.remove(failed))
            for item in failed:
                self._owed.pop(item, None)

    def touch(self, objects: Sequence[ObjectId]) -> None:
        now = time.time()
        with self._touch_lock:
            # The first of a batch leads the way to the others: it is to go last.
            self._touched.update((item, now - i * 1e-6) for i, item in enumerate(objects))
        self._ticker.start()

    def removed(self, objects: Sequence[ObjectId]) -> None:
        with self._touch_lock:
            for item in objects:
                self._touched.pop(item, None)
        with self._lock:
            self._ask(lambda index: index.remove(objects), is_made=False)

    def cleared(self, namespace: bytes) -> None:
        with self._touch_lock:
            rest = {o: when for o, when in self._touched.items() if o.namespace != namespace}
            self._touched = rest
        with self._lock:
            self._ask(lambda index: index.remove_under(namespace), is_made=False)

    def ran_full(self, root: OpenRoot, num_bytes: int) -> None:
        with self._lock:
            self._evict(root, max(0, self._used_bytes - num_bytes))

    def used_at(self, objects: Sequence[ObjectId]) -> dict[ObjectId, float]:
        with self._lock:
            known = self._ask(lambda index: index.used_at(objects), is_made=False) or {}
        with self._touch_lock:
            return known | {o: self._touched[o] for o in objects if o in self._touched}

    def stats(self) -> dict[str, float]:
        sizes = {
            "used_bytes": float(self._used_bytes),
            "index_faults": float(self._file.num_faults),
        }
        if self._capacity is not None:
            sizes["capacity_bytes"] = float(self._capacity)
        return self._counts.snapshot() | sizes

    def close(self) -> None:
        self._ticker.stop()
        with self._lock:
            with contextlib.suppress(OSError), self._root.open() as root:
                self._write_down(root)
            self._file.close()

    # --- room; the lock is held -----------------------------------------------------------------

    def _reserve(self, root: OpenRoot, objects: Sequence[ObjectId], num_bytes: int) -> int:
        """How many of the first objects may be written."""
        total = self._ask(lambda index: index.reserve(objects, num_bytes, time.time()))
        if total is None:
            return self._owe(objects, num_bytes)
        if self._capacity is None:
            return len(objects)
        if total > self._capacity:
            self._write_down(root)  # what was just used must not be the oldest
        excess = self._evict(root, self._capacity, keep=frozenset(objects))
        num_granted = max(0, len(objects) - -(-excess // num_bytes))
        if num_granted < len(objects):
            self._ask(lambda index: index.remove(objects[num_granted:]))
        return num_granted

    def _evict(self, root: OpenRoot, bound: int, keep: frozenset[ObjectId] = frozenset()) -> int:
        """Remove the oldest objects; returns the bytes that are still above the bound."""
        excess = self._used_bytes - bound
        while excess > 0:
            rows = self._ask(lambda index: index.oldest(_EVICT_AT_ONCE, time.time())) or []
            oldest = up_to(excess, [row for row in rows if row.object not in keep])
            gone = [row for row in oldest if remove_object(root, row.object)]
            if not gone:
                break
            self._forget(gone)
            excess = self._used_bytes - bound
        return max(0, excess)

    def _forget(self, gone: Sequence[Row]) -> None:
        if self._ask(lambda index: index.remove_unused(gone)) is None:
            self._used_bytes -= sum(row.num_bytes for row in gone)
        self._counts.add("evicted", len(gone))
        self._counts.add("evicted_bytes", sum(row.num_bytes for row in gone))

    def _owe(self, objects: Sequence[ObjectId], num_bytes: int) -> int:
        """Let some be written that the index cannot be told of now."""
        if self._capacity is None:
            return len(objects)
        room = self._capacity // _OWED - sum(row.num_bytes for row in self._owed.values())
        num_granted = max(0, min(len(objects), room // num_bytes))
        now = time.time()
        self._owed |= {item: Row(item, num_bytes, now) for item in objects[:num_granted]}
        return num_granted

    # --- what is written down later; the lock is held -------------------------------------------

    def _write_down(self, root: OpenRoot) -> None:
        """Tell the index what was used, and what it is owed."""
        with self._touch_lock:
            touched, self._touched = self._touched, {}
        unknown = self._ask(lambda index: index.touch(list(touched.items()))) if touched else []
        if unknown is None:  # lost: it was advice
            return
        times = {o: row.used_at for o, row in self._owed.items()} | {o: touched[o] for o in unknown}
        sizes = [(item, object_size(root, item)) for item in times]
        rows = [Row(item, size, times[item]) for item, size in sizes if size is not None]
        if rows and self._ask(lambda index: index.adopt(rows)) is None:
            return
        told, before = {row.object for row in rows}, time.time() - PENDING_S
        # What is not there yet is being written, or was not written in the end.
        self._owed = {
            o: row for o, row in self._owed.items() if o not in told and row.used_at > before
        }

    def _tick(self) -> None:
        with contextlib.suppress(OSError):  # where the root is gone, callers are told
            with self._root.open() as root, self._lock:
                self._file.follow()
                self._write_down(root)
                if self._capacity is not None:
                    self._evict(root, self._capacity - self._headroom())
                self._ask(Index.checkpoint)
            self._reconciler.run_for(_WALK_S)

    def _headroom(self) -> int:
        assert self._capacity is not None
        is_large = self._capacity >= _HEADROOM_FROM * self._largest
        return self._capacity // _HEADROOM if is_large else 0

    # --- the index ------------------------------------------------------------------------------

    def _ask(self, work: Callable[[Index], Result], *, is_made: bool = True) -> Result | None:
        """None where it cannot be used now. The lock is held."""
        for _ in range(2):  # one that is spoilt is begun anew
            index = self._file.get(is_made=is_made)
            if index is None:
                break
            try:
                result = work(index)
                self._used_bytes = index.total()
                return result
            except sqlite3.Error as error:
                self._file.failed(error)
        return None

    def _ask_locked(self, work: Callable[[Index], Result]) -> Result | None:
        with self._lock:
            return self._ask(work)
