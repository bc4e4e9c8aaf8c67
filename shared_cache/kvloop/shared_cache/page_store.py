"""Pages to and from L3 as the nodes use it: sealed, checked, counted, and never an error."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from kvloop.shared_cache.backend import leading_run
from kvloop.shared_cache.guard import GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import Verdict, check, seal
from kvloop.shared_cache.storage_counters import StorageCounters, StoragePath
from kvloop.shared_cache.wire import Role

_CALL_BYTES = 64 << 20  # moved by one guarded call, so that its deadline is fair


class LoadedPage(NamedTuple):
    """Both are None for a page that is not there; otherwise the slot is the caller's."""

    slot: int | None
    writer: Role | None


_MISS = LoadedPage(None, None)


class PageStore:
    """One node's L3, over the slots of its host pool; thread-safe, and nothing here raises.

    Calls block for at most the guard's deadline per 64 MiB.
    """

    def __init__(
        self,
        backend: GuardedBackend,
        pool: HostPool,
        *,
        namespace: bytes,
        writer: Role,
        counters: StorageCounters | None = None,
    ) -> None:
        self.counters = counters or StorageCounters()
        self._backend = backend
        self._pool = pool
        self._namespace = namespace
        self._writer = writer
        self._save_path: StoragePath = "write_through" if writer == "prefill" else "offload"
        self._pages_per_call = max(1, _CALL_BYTES // pool.shape.slot_bytes)

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

    def load(self, keys: Sequence[bytes]) -> list[LoadedPage]:
        """Read pages into fresh slots and check them; one entry for each key.

        A page whose object does not check is a counted fault, is removed from L3, and is a miss.
        After a call's worth of pages with a hole the rest is not asked for: pages behind a hole
        are useless. Too few free slots cut the run short as well. The caller frees the slots.
        """
        pages: list[LoadedPage] = []
        with self._timed("prefetch"):
            for batch in self._calls(keys):
                loaded = self._load(batch)
                pages += loaded
                if len(loaded) < len(batch) or _MISS in loaded:
                    break
        return pages + [_MISS] * (len(keys) - len(pages))

    def save(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        """Seal the payloads in `slots` and store them; True once a page is readable by all.

        The slots stay the caller's to free, and he must not write to them again before that.
        """
        assert len(keys) == len(slots), (len(keys), len(slots))
        stored: list[bool] = []
        with self._timed(self._save_path):
            for batch in self._calls(range(len(keys))):
                stored += self._save([keys[i] for i in batch], [slots[i] for i in batch])
        return stored

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
        return self._backend.close(timeout_s)

    def _load(self, keys: Sequence[bytes]) -> list[LoadedPage]:
        """One entry for each key that there was a slot for."""
        slots = self._alloc(len(keys))
        self.counters.add_pages("prefetch", "no_slot", len(keys) - len(slots))
        keys = keys[: len(slots)]
        if not keys:
            return []
        found = self._backend.get(keys, slots)
        if found is None:
            self._pool.free(slots)
            self.counters.add_pages("prefetch", "unavailable", len(keys))
            return [_MISS] * len(keys)
        self.counters.add_pages("prefetch", "miss", found.count(False))
        checked = [self._check(*page) for page in zip(keys, slots, found, strict=True)]
        self._remove([key for key, page in zip(keys, checked, strict=True) if page is None])
        self._count_moved("prefetch", checked.count(None), len(keys) - found.count(False))
        return [page or _MISS for page in checked]

    def _alloc(self, n: int) -> list[int]:
        """As many slots as there are, up to n; halving, as others take slots at the same time."""
        while n:
            slots = self._pool.alloc(n)
            if slots is not None:
                return slots
            n = min(n - 1, self._pool.num_free)
        return []

    def _check(self, key: bytes, slot: int, is_found: bool) -> LoadedPage | None:
        """The page, the miss, or None for a fault; only a good page keeps its slot."""
        verdict = self._verdict(key, slot) if is_found else None
        if verdict is not None and verdict.fault is None:
            return LoadedPage(slot, verdict.writer)
        self._pool.free([slot])
        if verdict is None:
            return _MISS
        assert verdict.fault is not None
        self.counters.add_fault(verdict.fault)
        return None

    def _verdict(self, key: bytes, slot: int) -> Verdict:
        """The first group's fault, or the writer."""
        for group in range(self._pool.shape.head_groups):
            view = self._pool.group_view(slot, group)
            verdict = check(view, self._pool.shape, key, self._namespace, group)
            if verdict.fault is not None:
                break
        return verdict

    def _remove(self, bad_keys: Sequence[bytes]) -> None:
        """The first put wins, so a bad object must go before a good one can come."""
        if bad_keys:
            self._backend.delete(bad_keys)

    def _count_moved(self, path: StoragePath, num_faults: int, num_moved: int) -> None:
        size = self._pool.shape.slot_bytes
        num_hits = num_moved - num_faults
        self.counters.add_pages(path, "fault", num_faults, num_faults * size)
        self.counters.add_pages(path, "hit", num_hits, num_hits * size)

    def _save(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        for key, slot in zip(keys, slots, strict=True):
            self._seal(key, slot)
        stored = self._backend.set(keys, slots)
        if stored is None:
            self.counters.add_pages(self._save_path, "unavailable", len(keys))
            return [False] * len(keys)
        num_bytes = sum(stored) * self._pool.shape.slot_bytes
        self.counters.add_pages(self._save_path, "stored", sum(stored), num_bytes)
        self.counters.add_pages(self._save_path, "no_room", stored.count(False))
        return stored

    def _seal(self, key: bytes, slot: int) -> None:
        for group in range(self._pool.shape.head_groups):
            view = self._pool.group_view(slot, group)
            seal(view, self._pool.shape, key, self._namespace, group, self._writer)

    def _calls(self, items: Sequence[Any]) -> Iterator[Sequence[Any]]:
        for start in range(0, len(items), self._pages_per_call):
            yield items[start : start + self._pages_per_call]

    @contextmanager
    def _timed(self, path: StoragePath) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.counters.add_seconds(path, time.monotonic() - start)
