"""Writes pages to a nearer store in the background, from the slots that they were read into."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection, Sequence
from typing import NamedTuple

from kvloop.shared_cache.backends.chain.tier import Tier
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import check

_PAGES_PER_CALL = 16
_CLOSE_S = 5.0


class _Page(NamedTuple):
    key: bytes
    slot: int


class Promoter:
    """Holds the slots of what waits, and frees each when its page is written or dropped.

    A page whose trailer does not check is not promoted: whoever asked for it removes it. Nor is
    one when the queue is full, or the store is down. Thread-safe.
    """

    def __init__(self, target: Tier, pool: HostPool, namespace: bytes, max_pages: int) -> None:
        self._target = target
        self._pool = pool
        self._namespace = namespace
        self._max_pages = max(1, min(max_pages, pool.num_slots // 4))
        self._change = threading.Condition()
        self._queue: deque[_Page] = deque()
        self._under_way: frozenset[bytes] = frozenset()
        self._is_closed = False
        self._counts = dict.fromkeys(("promoted", "promotions_dropped", "damaged"), 0.0)
        self._thread = threading.Thread(target=self._run, name="l3-promoter", daemon=True)
        self._thread.start()

    def offer(self, keys: Sequence[bytes], slots: Sequence[int]) -> None:
        """Take what there is room for; the slots must be allocated. Returns at once."""
        with self._change:
            room = 0
            if self._target.is_up and not self._is_closed:
                room = self._max_pages - len(self._queue) - len(self._under_way)
            pages = [_Page(*page) for page in zip(keys, slots, strict=True)][: max(0, room)]
            self._pool.retain([page.slot for page in pages])
            self._queue += pages
            self._counts["promotions_dropped"] += len(keys) - len(pages)
            self._change.notify_all()

    def forget(self, keys: Collection[bytes] | None, timeout_s: float) -> None:
        """Before these pages, or all, are deleted: let no promotion bring them back.

        Waits for one that is under way.
        """
        with self._change:
            gone = [page for page in self._queue if keys is None or page.key in keys]
            self._queue = deque(page for page in self._queue if page not in gone)
            self._pool.free([page.slot for page in gone])
            self._change.wait_for(lambda: not self._is_writing(keys), timeout_s)

    def stats(self) -> dict[str, float]:
        """Pages since the start, and those that wait or are under way."""
        with self._change:
            waiting = len(self._queue) + len(self._under_way)
            return {**self._counts, "promotions_waiting": float(waiting)}

    def close(self) -> None:
        """Drop what waits; ends within seconds."""
        with self._change:
            self._is_closed = True
            self._change.notify_all()
        self._thread.join(_CLOSE_S)

    def _is_writing(self, keys: Collection[bytes] | None) -> bool:
        return bool(self._under_way if keys is None else self._under_way.intersection(keys))

    def _run(self) -> None:
        while batch := self._take():
            try:
                self._promote(batch)
            finally:
                self._pool.free([page.slot for page in batch])
                with self._change:
                    self._under_way = frozenset()
                    self._change.notify_all()
        with self._change:
            self._pool.free([page.slot for page in self._queue])
            self._queue.clear()

    def _take(self) -> list[_Page]:
        """Empty once it is closed."""
        with self._change:
            self._change.wait_for(lambda: self._queue or self._is_closed)
            if self._is_closed:
                return []
            num_pages = min(_PAGES_PER_CALL, len(self._queue))
            batch = [self._queue.popleft() for _ in range(num_pages)]
            self._under_way = frozenset(page.key for page in batch)
            return batch

    def _promote(self, batch: Sequence[_Page]) -> None:
        good = [page for page in batch if is_sound(self._pool, self._namespace, *page)]
        stored = self._target.set([page.key for page in good], [page.slot for page in good])
        num_stored = sum(stored or ())
        with self._change:
            self._counts["damaged"] += len(batch) - len(good)
            self._counts["promoted"] += num_stored
            self._counts["promotions_dropped"] += len(good) - num_stored


def is_sound(pool: HostPool, namespace: bytes, key: bytes, slot: int) -> bool:
    """Whether the trailers of all groups check."""
    groups = range(pool.shape.head_groups)
    return all(
        check(pool.group_view(slot, group), pool.shape, key, namespace, group).fault is None
        for group in groups
    )
