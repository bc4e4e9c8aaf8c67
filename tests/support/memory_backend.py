"""A backend for tests of the guard: a dict, and a hand on the valve."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether the condition became true within ten seconds."""
    until = time.monotonic() + 10
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    return condition()


class Valve:
    """Shared by all openings of one store: makes calls hang or fail."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.is_open.set()
        self.error: Exception | None = None
        self.num_opened = 0
        self.num_closed = 0
        self.num_waiting = 0
        """Calls that have come to the valve, ever."""
        self.has_room = True
        """For records; pages always have some."""
        self.stats_error: Exception | None = None
        self.pages: dict[bytes, bytes] = {}

    def pass_through(self) -> None:
        self.num_waiting += 1
        assert self.is_open.wait(30)
        if self.error is not None:
            raise self.error


class MemoryBackend(StorageBackend):
    """Calls pass the valve first; writes into the slot happen after it."""

    def __init__(self, valve: Valve, pool: HostPool) -> None:
        if valve.error is not None:
            raise StorageUnavailable("cannot open")
        valve.num_opened += 1
        self._valve = valve
        self._pool = pool
        self._num_running = 0

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        self._valve.pass_through()
        return [key in self._valve.pages for key in keys]

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        self._num_running += 1
        self._valve.pass_through()
        for key, slot in zip(keys, slots, strict=True):
            if key in self._valve.pages:
                self._pool.view(slot)[:] = self._valve.pages[key]
        self._num_running -= 1
        return [key in self._valve.pages for key in keys]

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        self._valve.pass_through()
        for key, slot in zip(keys, slots, strict=True):
            self._valve.pages.setdefault(key, bytes(self._pool.view(slot)))
        return [True] * len(keys)

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        self._valve.pass_through()
        return [self._valve.pages.pop(key, None) is not None for key in keys]

    def put_small(self, name: str, value: bytes) -> bool:
        self._valve.pass_through()
        if self._valve.has_room:
            self._valve.pages[name.encode()] = value
        return self._valve.has_room

    def get_small(self, name: str) -> bytes | None:
        self._valve.pass_through()
        return self._valve.pages.get(name.encode())

    def stats(self) -> dict[str, float]:
        if self._valve.stats_error is not None:
            raise self._valve.stats_error
        return {"pages": len(self._valve.pages)}

    def clear(self) -> None:
        self._valve.pass_through()
        self._valve.pages.clear()

    def close(self) -> None:
        assert self._num_running == 0, "closed under a running call"
        self._valve.num_closed += 1
