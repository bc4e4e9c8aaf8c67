"""Two reference stores that a chain or zones stand on, each with a hand on its faults."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence

from reference_store import STORES, ReferenceBackend

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.conformance.pages import SMALL, page_image
from kvloop.shared_cache.failure_injector import NO_FAILURES, FailureInjector, FailureSettings
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable

NAMESPACE = b"n" * 32
STALLED = FailureSettings(stalls=1.0, stall_s=60.0)
BROKEN = FailureSettings(errors=1.0)


class FrailStore:
    """One store; what is done to it holds for all openings, now and later."""

    def __init__(self) -> None:
        self.name = secrets.token_hex(8)
        self.num_calls = 0
        self._settings = NO_FAILURES
        self._openings: list[FailureInjector] = []

    def opener(self, pool: HostPool) -> Callable[[], StorageBackend]:
        def open_it() -> StorageBackend:
            if self._settings.errors:
                raise StorageUnavailable("cannot open")
            backend = _Counting(self, pool)
            self._openings.append(FailureInjector(backend, self._settings))
            return self._openings[-1]

        return open_it

    def suffer(self, settings: FailureSettings) -> None:
        self._settings = settings
        for opening in self._openings:
            opening.configure(settings)

    def heal(self) -> None:
        self.suffer(NO_FAILURES)

    def keys(self) -> set[bytes]:
        return {key for _, key in STORES[self.name].pages}

    def remove(self, *keys: bytes) -> None:
        for key in keys:
            del STORES[self.name].pages[NAMESPACE, key]

    def plant(self, key: bytes, damaged: bool = False) -> None:
        page = bytearray(page_image(SMALL, NAMESPACE, key))
        page[5] ^= damaged
        size = SMALL.object_bytes
        groups = [bytes(page[i : i + size]) for i in range(0, len(page), size)]
        STORES[self.name].pages[NAMESPACE, key] = groups

    def records(self) -> dict[str, bytes]:
        return {name: value for (_, name), value in STORES[self.name].records.items()}


class _Counting(ReferenceBackend):
    def __init__(self, store: FrailStore, pool: HostPool) -> None:
        super().__init__({"store": store.name}, pool, NAMESPACE)
        self.frail = store

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        self.frail.num_calls += 1
        return super().exists(keys)

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        self.frail.num_calls += 1
        return super().get(keys, slots)


class Slots:
    """A pool with pages to write and blank slots to read into."""

    def __init__(self, num_slots: int = 32) -> None:
        self.pool = HostPool(SMALL, num_slots)

    def filled(self, keys: Sequence[bytes]) -> list[int]:
        slots = self.blank(len(keys))
        for key, slot in zip(keys, slots, strict=True):
            self.pool.view(slot)[:] = page_image(SMALL, NAMESPACE, key)
        return slots

    def blank(self, n: int) -> list[int]:
        slots = self.pool.alloc(n)
        assert slots is not None
        for slot in slots:
            self.pool.view(slot)[:] = bytes(SMALL.slot_bytes)
        return slots

    def hold(self, slots: Sequence[int], keys: Sequence[bytes]) -> bool:
        return all(
            bytes(self.pool.view(slot)) == page_image(SMALL, NAMESPACE, key)
            for key, slot in zip(keys, slots, strict=True)
        )


def until(what: str, condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    """Wait for it; fails naming what did not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {timeout_s} s"
        time.sleep(0.01)
