"""What carries the load: kvloop over a backend, with and without checksums."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from kvloop.shared_cache.guard import GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_store import PageStore


class Arm(ABC):
    """One way to the storage, over the slots of one pool; thread-safe.

    Each thread has slots of its own. The answers say how many pages were moved.
    """

    name: str

    def prepare(self) -> None:  # noqa: B027
        """Before each round; not timed."""

    @abstractmethod
    def write(self, keys: Sequence[bytes], slots: Sequence[int]) -> int:
        """Store pages."""

    @abstractmethod
    def read(self, keys: Sequence[bytes], slots: Sequence[int]) -> int:
        """Read pages that were stored."""

    @abstractmethod
    def forget(self, keys: Sequence[bytes]) -> None:
        """Remove pages; not timed."""

    def close(self) -> None:  # noqa: B027
        """Leave nothing behind."""


class CheckedArm(Arm):
    """As a node does it: sealed, checked, counted, guarded."""

    name = "kvloop"

    def __init__(self, store: PageStore, guard: GuardedBackend) -> None:
        self._store = store
        self._guard = guard

    def write(self, keys: Sequence[bytes], slots: Sequence[int]) -> int:
        return sum(self._store.save(keys, slots))

    def read(self, keys: Sequence[bytes], slots: Sequence[int]) -> int:
        return sum(writer is not None for writer in self._store.load(keys, slots))

    def forget(self, keys: Sequence[bytes]) -> None:
        self._guard.delete(keys)


class UncheckedArm(Arm):
    """The guarded backend alone: no checksum is computed."""

    name = "kvloop, no checksums"

    def __init__(self, guard: GuardedBackend) -> None:
        self._guard = guard

    def write(self, keys: Sequence[bytes], slots: Sequence[int]) -> int:
        return sum(self._guard.set(keys, slots) or [])

    def read(self, keys: Sequence[bytes], slots: Sequence[int]) -> int:
        return sum(self._guard.get(keys, slots) or [])

    def forget(self, keys: Sequence[bytes]) -> None:
        self._guard.delete(keys)


class MemcpyArm(Arm):
    """Copies of pages from slot to memory and back: what no storage can beat."""

    name = "memcpy"

    def __init__(self, pool: HostPool) -> None:
        self._pool = pool
        self._other = pool.array.copy()

    def write(self, keys: Sequence[bytes], slots: Sequence[int]) -> int:
        for slot in slots:
            self._other[slot] = self._pool.array[slot]
        return len(slots)

    def read(self, keys: Sequence[bytes], slots: Sequence[int]) -> int:
        for slot in slots:
            self._pool.array[slot] = self._other[slot]
        return len(slots)

    def forget(self, keys: Sequence[bytes]) -> None:
        pass
