"""A shared store in memory that can fail, stall, lose, damage, and refuse pages."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable

_LONGEST_STALL_S = 30.0


class FaultyStore:
    """What outlives every node: its pages, and the hands on its faults."""

    def __init__(self) -> None:
        self.pages: dict[bytes, bytes] = {}
        self.records: dict[str, bytes] = {}
        self.ever: set[bytes] = set()
        """Keys of pages that were stored at any time."""
        self.saved: set[bytes] = set()
        """Those of them that came through a backend."""
        self.error: Exception | None = None
        self.has_room = True
        self.claims_all = False
        """Says that it holds what it does not; reading that is a miss."""
        self.in_calls: Counter[int] = Counter()
        """Slots that calls under way read or write."""
        self._flows = threading.Event()
        self._flows.set()

    def put(self, key: bytes, page: bytes) -> None:
        """The first put wins."""
        self.pages.setdefault(key, page)
        self.ever.add(key)

    def damage(self, key: bytes, at: int) -> None:
        """Flip one byte of a stored page."""
        page = bytearray(self.pages[key])
        page[at % len(page)] ^= 0xFF
        self.pages[key] = bytes(page)

    @property
    def is_stalled(self) -> bool:
        return not self._flows.is_set()

    def stall(self) -> None:
        """Calls hang until `heal`."""
        self._flows.clear()

    def heal(self) -> None:
        """No fault but what was lost or damaged."""
        self.error, self.has_room, self.claims_all = None, True, False
        self._flows.set()

    def enter(self) -> None:
        """Each call comes through here first."""
        assert self._flows.wait(_LONGEST_STALL_S), "nobody ended the stall"
        if self.error is not None:
            raise self.error


class FaultyBackend(StorageBackend):
    """One process's connection; `is_dead` when that process has crashed."""

    def __init__(self, store: FaultyStore, pool: HostPool) -> None:
        if store.error is not None:
            raise StorageUnavailable("cannot open")
        self.is_dead = False
        self._store, self._pool = store, pool

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        self._enter()
        return [key in self._store.pages or self._store.claims_all for key in keys]

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        with self._using(slots):
            self._enter()
            for key, slot in zip(keys, slots, strict=True):
                if key in self._store.pages:
                    self._pool.view(slot)[:] = self._store.pages[key]
            return [key in self._store.pages for key in keys]

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        with self._using(slots):
            self._enter()
            for key, slot in zip(keys, slots, strict=True):
                if self._store.has_room:
                    self._store.put(key, bytes(self._pool.view(slot)))
                    self._store.saved.add(key)
            return [key in self._store.pages for key in keys]

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        self._enter()
        return [self._store.pages.pop(key, None) is not None for key in keys]

    def put_small(self, name: str, value: bytes) -> bool:
        self._enter()
        self._store.records[name] = value
        return True

    def get_small(self, name: str) -> bytes | None:
        self._enter()
        return self._store.records.get(name)

    def stats(self) -> dict[str, float]:
        return {"pages": float(len(self._store.pages))}

    def clear(self) -> None:
        self._enter()
        self._store.pages.clear()
        self._store.records.clear()

    def close(self) -> None:
        """Nothing is held."""

    @contextmanager
    def _using(self, slots: Sequence[int]) -> Iterator[None]:
        self._store.in_calls.update(slots)
        try:
            yield
        finally:
            self._store.in_calls.subtract(slots)

    def _enter(self) -> None:
        self._store.enter()
        if self.is_dead:
            raise StorageUnavailable("its process has crashed")
