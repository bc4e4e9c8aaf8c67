"""Reads a prompt's pages from the shared cache into L2 while the prompt queues."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from kvloop.shared_cache.hicache import HiCache
from kvloop.shared_cache.hicache_parts import Fetched
from kvloop.shared_cache.page_store import PageStore
from kvloop.shared_cache.prefetch_policy import Rates
from kvloop.shared_cache.wire import Role
from kvloop.shared_cache.workers import Workers

_THREADS = 4
_BATCH_BYTES = 8 << 20
"""Read in one go: small enough to stop soon, large enough to be quick."""


class Prefetch:
    """Pages of one prompt on their way; made and moved on by the Prefetcher."""

    def __init__(self, keys: Sequence[bytes], first: int, owner: str, generation: int) -> None:
        self.keys, self.first, self.owner = keys, first, owner
        self.generation = generation
        """Of what was known about L3 when it began."""
        self.began_at = time.monotonic()
        self.num_found = 0
        """Pages that L3 says it has, from `first` on."""
        self.slots: list[int] = []
        self.writers: list[Role] = []
        """Of the pages that have arrived; grown by the reading thread."""
        self.is_done = False
        self.is_stopped = False
        """Whoever waited has gone on without the rest."""
        self.num_given = 0
        """Leading slots that belong to the request now."""
        self.future: Future[None] | Future[int]

    @property
    def num_wanted(self) -> int:
        """Pages that it may still bring, or has brought."""
        return len(self.slots) or len(self.keys) - self.first


class Prefetcher:
    """`turn` is called by the loop; a few threads ask and read."""

    def __init__(
        self,
        store: PageStore,
        cache: HiCache,
        rates: Rates,
        unfulfilled: Callable[[str, int], None],
        page_bytes: int,
    ) -> None:
        self._store, self._cache, self._rates = store, cache, rates
        self._unfulfilled = unfulfilled
        self._batch = max(1, _BATCH_BYTES // page_bytes)
        self._threads = Workers(_THREADS, "prefetch")
        self._asking: list[Prefetch] = []
        self._queued: list[Prefetch] = []
        """Those that have found pages, and wait until others' slots are taken."""
        self._reading: list[Prefetch] = []

    @property
    def num_active(self) -> int:
        return len(self._active)

    @property
    def _active(self) -> list[Prefetch]:
        return [*self._reading, *self._queued, *self._asking]

    def start(self, keys: Sequence[bytes], first: int, owner: str) -> Prefetch:
        """Look in L3 for the pages of a run from `first` on."""
        prefetch = Prefetch(keys, first, owner, self._cache.marks.generation)
        prefetch.future = self._threads.submit(self._ask, prefetch)
        self._asking.append(prefetch)
        return prefetch

    def under_way(self, key: bytes) -> Prefetch | None:
        """One that others wait for already, and that brings this page first."""
        for prefetch in self._active:
            if not prefetch.is_stopped and prefetch.keys[prefetch.first] == key:
                return prefetch
        return None

    def turn(self) -> None:
        """Give slots to those that found pages; end those that have read them."""
        self._queued += [p for p in self._asking if p.future.done()]
        self._asking = [p for p in self._asking if p not in self._queued]
        for prefetch in [p for p in self._queued if p.is_stopped or not p.num_found]:
            prefetch.is_done = True
            self._queued.remove(prefetch)
        while self._queued and self._has_room(self._queued[0]):
            self._begin(self._queued.pop(0))
        read = [p for p in self._reading if p.future.done()]
        self._reading = [p for p in self._reading if p not in read]
        for prefetch in read:
            self._end(prefetch)

    def take(self, prefetch: Prefetch, reason: str) -> Fetched:
        """What has arrived, its slots the caller's; the rest is not waited for, by that reason."""
        arrived = len(prefetch.writers)
        fetched = self._slice(prefetch, 0, arrived)
        prefetch.num_given = arrived
        self._cache.host.handed_over(arrived)
        if not prefetch.is_done:
            prefetch.is_stopped = True
            self._unfulfilled(reason, max(prefetch.num_found - arrived, 0))
            if not prefetch.slots and not prefetch.future.done():
                self._unfulfilled("unanswered", len(prefetch.keys) - prefetch.first)
            self._cache.host.landed(arrived, prefetch.owner)
            self._adopt(prefetch, fetched)
        return fetched

    def drop(self, prefetch: Prefetch) -> None:
        """Nobody waits for it any more."""
        self._cache.give_back(self.take(prefetch, "cancelled"))

    def close(self) -> None:
        """Begin nothing more."""
        for prefetch in self._active:
            prefetch.is_stopped = True
        self._threads.stop()

    # --- the loop's side ------------------------------------------------------------------------

    def _has_room(self, prefetch: Prefetch) -> bool:
        """All its pages get slots, or nobody else holds any: two halves would wait for ever."""
        host = self._cache.host
        return prefetch.num_found <= host.fetch_room or not host.num_held

    def _begin(self, prefetch: Prefetch) -> None:
        prefetch.slots = self._cache.host.take_for_fetch(
            prefetch.num_found, prefetch.owner, spare=prefetch.keys
        )
        self._unfulfilled("no_slot", prefetch.num_found - len(prefetch.slots))
        if not prefetch.slots:
            prefetch.is_done = True
            return
        prefetch.future = self._threads.submit(self._read, prefetch)
        self._reading.append(prefetch)

    def _end(self, prefetch: Prefetch) -> None:
        arrived = len(prefetch.writers)
        self._cache.host.landed(len(prefetch.slots) - prefetch.num_given, prefetch.owner)
        self._cache.host.slots.free(prefetch.slots[arrived:])
        gone = prefetch.num_given if prefetch.is_stopped else arrived
        self._cache.host.handed_over(len(prefetch.slots) - gone)
        late = self._slice(prefetch, prefetch.num_given, arrived)
        self._adopt(prefetch, late)
        if prefetch.is_stopped:
            self._cache.give_back(late)
        else:
            self._unfulfilled("lost", len(prefetch.slots) - arrived)
        prefetch.is_done = True

    def _adopt(self, prefetch: Prefetch, fetched: Fetched) -> None:
        if fetched.slots:
            self._cache.adopt(prefetch.keys, fetched, prefetch.owner)

    def _slice(self, prefetch: Prefetch, start: int, end: int) -> Fetched:
        return Fetched(
            first=prefetch.first + start,
            slots=tuple(prefetch.slots[start:end]),
            writers=tuple(prefetch.writers[start:end]),
            generation=prefetch.generation,
        )

    # --- the threads' side ----------------------------------------------------------------------

    def _ask(self, prefetch: Prefetch) -> None:
        if not prefetch.is_stopped:
            prefetch.num_found = self._store.leading_run(prefetch.keys[prefetch.first :])

    def _read(self, prefetch: Prefetch) -> None:
        keys = prefetch.keys[prefetch.first :]
        for start in range(0, len(prefetch.slots), self._batch):
            if prefetch.is_stopped:
                return
            batch = slice(start, min(start + self._batch, len(prefetch.slots)))
            began_at = time.monotonic()
            writers = self._store.load(keys[batch], prefetch.slots[batch])
            now = time.monotonic()
            good = writers.index(None) if None in writers else len(writers)
            prefetch.writers += [writer for writer in writers[:good] if writer is not None]
            if good:
                self._rates.fetched(good, now - began_at)
            if good < len(writers):
                return
            if not start:
                self._rates.answered(now - prefetch.began_at)
