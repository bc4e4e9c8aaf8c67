"""Pages to and from L3 as the nodes use it: sealed, checked, counted, and never an error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from typing import Any, TypeVar

from kvloop.shared_cache.backend import leading_run
from kvloop.shared_cache.guard import GuardedBackend
from kvloop.shared_cache.host_pool import HostPool, copy_pages
from kvloop.shared_cache.page_object import Verdict, check, seal
from kvloop.shared_cache.storage_counters import StorageCounters, StoragePath
from kvloop.shared_cache.wire import Role
from kvloop.shared_cache.workers import Workers

Result = TypeVar("Result")
_CALL_BYTES = 64 << 20  # moved by one guarded call, so that its deadline is fair
_PART_BYTES = 8 << 20  # of a large batch, and as many pages at least:
_PART_PAGES = 8
_NUM_LANES = 3  # parts moved at once
_NUM_HELPERS = 4
_STAGING_WAIT_S = 1.0


class PageStore:
    """One node's L3, over the slots of its host pool; thread-safe, and nothing here raises.

    The backend reads and writes the slots of `pool` where these are page objects; else those of
    `staging`, a small pool of objects that pages are converted through. Calls block for at most
    the guard's deadline per 64 MiB, and a second where all of `staging` is in use.
    """

    def __init__(
        self,
        backend: GuardedBackend,
        pool: HostPool,
        *,
        namespace: bytes,
        writer: Role,
        counters: StorageCounters | None = None,
        staging: HostPool | None = None,
    ) -> None:
        """`backend` was opened over `staging` where there is one, else over `pool`."""
        assert (staging or pool).holds_objects and (staging is None or not pool.holds_objects)
        self.counters = counters or StorageCounters()
        self._backend = backend
        self._pool = pool
        self._staging = staging
        self._objects = staging or pool
        self._shape = pool.shape
        self._namespace = namespace
        self._writer = writer
        self._save_path: StoragePath = "write_through" if writer == "prefill" else "offload"
        self._pages_per_call = max(1, _CALL_BYTES // pool.shape.slot_bytes)
        self._helpers = Workers(_NUM_HELPERS, "l3-part")

    @property
    def is_attached(self) -> bool:
        """False: calls return at once, with nothing."""
        return self._backend.state == "attached"

    @property
    def epoch(self) -> bytes | None:
        """Changes when L3 may have lost its pages: what is remembered of them is void."""
        return self._backend.epoch

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        """Say which pages L3 holds; all False where it does not answer."""
        if not keys:
            return []
        return self._backend.exists(keys) or [False] * len(keys)

    def leading_run(self, keys: Sequence[bytes]) -> int:
        """How many of the first keys L3 holds without a hole."""
        return leading_run(self.exists(keys))

    def load(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[Role | None]:
        """Read pages into the caller's slots of `pool` and check them: each page's writer, or None.

        A page whose object does not check is a counted fault, is removed from L3, and is None.
        After a call's worth of pages with a hole the rest is not asked for: pages behind a hole
        are useless. The slots stay the caller's to free. Where the answer is None a call that
        missed its deadline may still write to the slot: free it, and do not fill it otherwise.
        """
        assert len(keys) == len(slots), (len(keys), len(slots))
        writers: list[Role | None] = []
        with self._timed("prefetch"):
            while len(writers) < len(keys) and None not in writers[-self._pages_per_call :]:
                batch = slice(len(writers), len(writers) + self._pages_per_call)
                loaded = self._in_parts(self._load, keys[batch], slots[batch])
                if not loaded:
                    self.counters.add_pages("prefetch", "no_slot", len(keys) - len(writers))
                    break
                writers += loaded
        return writers + [None] * (len(keys) - len(writers))

    def save(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        """Store the pages in `slots`; True once a page is readable by all.

        The slots stay the caller's to free, and he must not write to them again before that.
        """
        assert len(keys) == len(slots), (len(keys), len(slots))
        stored: list[bool] = []
        with self._timed(self._save_path):
            while len(stored) < len(keys):
                batch = slice(len(stored), len(stored) + self._pages_per_call)
                saved = self._in_parts(self._save, keys[batch], slots[batch])
                if not saved:
                    self.counters.add_pages(self._save_path, "no_slot", len(keys) - len(stored))
                    break
                stored += saved
        return stored + [False] * (len(keys) - len(stored))

    def put_small(self, name: str, value: bytes) -> bool:
        """Store a record of a few KiB; the last put wins."""
        return self._backend.put_small(name, value)

    def get_small(self, name: str) -> bytes | None:
        """Return a record, or None."""
        return self._backend.get_small(name)

    def status(self) -> dict[str, Any]:
        """The admin API's view of the backend."""
        return self._backend.status()

    def close(self, timeout_s: float = 5.0) -> bool:
        """Detach; False where calls still hang at the deadline."""
        self._helpers.stop()
        return self._backend.close(timeout_s)

    def _in_parts(
        self,
        work: Callable[[Sequence[bytes], Sequence[int]], list[Result]],
        keys: Sequence[bytes],
        slots: Sequence[int],
    ) -> list[Result]:
        """A large batch as calls of its parts, some at once: one's checksums are computed while
        others move.

        Not where there is staging, of which the first part might get less than it needs.
        """
        size = max(_PART_PAGES, _PART_BYTES // self._shape.slot_bytes)
        if self._staging or len(keys) <= size:
            return work(keys, slots)
        parts = [slice(start, start + size) for start in range(0, len(keys), size)]
        results: list[list[Result]] = [[] for _ in parts]
        left = iter(range(len(parts)))  # taking from it is atomic

        def take_parts() -> None:
            for i in left:
                results[i] = work(keys[parts[i]], slots[parts[i]])

        helpers = [self._helpers.submit(take_parts) for _ in range(_NUM_LANES - 1)]
        try:
            take_parts()
        finally:
            helpers = [helper for helper in helpers if not helper.cancel()]
            wait(helpers)
        for helper in helpers:
            helper.result()
        return [result for part in results for result in part]

    def _load(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[Role | None]:
        """One entry for each of the first keys: those that there was staging for."""
        if not self.is_attached:
            self._count_unavailable("prefetch", keys)
            return [None] * len(keys)
        with self._objects_for(slots) as objects:
            keys = keys[: len(objects)]
            found = self._backend.get(keys, objects) if objects else []
            if found is None:
                self._count_unavailable("prefetch", keys)
                return [None] * len(keys)
            writers = self._accept(keys, objects, found)
            good = [i for i, writer in enumerate(writers) if writer is not None]
            if self._staging is not None:
                mine = [slots[i] for i in good]
                copy_pages(self._staging, [objects[i] for i in good], self._pool, mine)
            return writers

    def _save(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        """The same, of storing."""
        if not self.is_attached:
            self._count_unavailable(self._save_path, keys)
            return [False] * len(keys)
        with self._objects_for(slots) as objects:
            keys = keys[: len(objects)]
            if self._staging is not None:
                copy_pages(self._pool, slots[: len(objects)], self._staging, objects)
            for key, slot in zip(keys, objects, strict=True):
                self._seal(key, slot)
            stored = self._backend.set(keys, objects) if objects else []
        if stored is None:
            self._count_unavailable(self._save_path, keys)
            return [False] * len(keys)
        num_bytes = sum(stored) * self._shape.slot_bytes
        self.counters.add_pages(self._save_path, "stored", sum(stored), num_bytes)
        self.counters.add_pages(self._save_path, "no_room", stored.count(False))
        return stored

    def _count_unavailable(self, path: StoragePath, keys: Sequence[bytes]) -> None:
        self.counters.add_pages(path, "unavailable", len(keys))

    @contextmanager
    def _objects_for(self, slots: Sequence[int]) -> Iterator[list[int]]:
        """Slots of the backend's pool for the first of these pages: as many as there are."""
        if self._staging is None:
            yield list(slots)
            return
        lent = self._staging.alloc_up_to(len(slots), _STAGING_WAIT_S)
        try:
            yield lent
        finally:
            self._staging.free(lent)

    def _accept(
        self, keys: Sequence[bytes], objects: Sequence[int], found: Sequence[bool]
    ) -> list[Role | None]:
        """The writers of the pages that were found and check; the others are counted."""
        verdicts = [
            self._verdict(key, slot) if is_found else None
            for key, slot, is_found in zip(keys, objects, found, strict=True)
        ]
        faults = [verdict.fault for verdict in verdicts if verdict is not None and verdict.fault]
        for fault in faults:
            self.counters.add_fault(fault)
        self._remove([key for key, v in zip(keys, verdicts, strict=True) if v and v.fault])
        self.counters.add_pages("prefetch", "miss", verdicts.count(None))
        self._count_moved("prefetch", len(faults), len(keys) - verdicts.count(None))
        return [verdict.writer if verdict else None for verdict in verdicts]

    def _verdict(self, key: bytes, slot: int) -> Verdict:
        """The first group's fault, or the writer."""
        for group in range(self._shape.head_groups):
            view = self._objects.group_view(slot, group)
            verdict = check(view, self._shape, key, self._namespace, group)
            if verdict.fault is not None:
                break
        return verdict

    def _remove(self, bad_keys: Sequence[bytes]) -> None:
        """The first put wins, so a bad object must go before a good one can come."""
        if bad_keys:
            self._backend.discard(bad_keys)

    def _count_moved(self, path: StoragePath, num_faults: int, num_moved: int) -> None:
        size = self._shape.slot_bytes
        num_hits = num_moved - num_faults
        self.counters.add_pages(path, "fault", num_faults, num_faults * size)
        self.counters.add_pages(path, "hit", num_hits, num_hits * size)

    def _seal(self, key: bytes, slot: int) -> None:
        for group in range(self._shape.head_groups):
            view = self._objects.group_view(slot, group)
            seal(view, self._shape, key, self._namespace, group, self._writer)

    @contextmanager
    def _timed(self, path: StoragePath) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.counters.add_seconds(path, time.monotonic() - start)

    # --- the backend itself -------------------------------------------------------------------

    @property
    def guard(self) -> GuardedBackend:
        """For the admin API: attach, detach, clear."""
        return self._backend

    @property
    def generation(self) -> int:
        """What was learnt of L3's content under an earlier one is void."""
        return self._backend.generation
