"""A backend whose calls fail the test when they take too long, so that no run hangs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from typing import TypeVar

from kvloop.shared_cache.backend import StorageBackend, StoredObject
from kvloop.shared_cache.workers import Workers

Result = TypeVar("Result")
_NUM_THREADS = 8


class DeadlineBackend(StorageBackend):
    """Calls run on threads of its own, as those of a node do."""

    def __init__(self, open_it: Callable[[], StorageBackend], deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._threads = Workers(_NUM_THREADS, "conformance")
        self._backend = self._call(open_it)

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        return self._call(lambda: self._backend.exists(keys))

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        return self._call(lambda: self._backend.get(keys, slots))

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        return self._call(lambda: self._backend.set(keys, slots))

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        return self._call(lambda: self._backend.delete(keys))

    def discard(self, keys: Sequence[bytes]) -> list[bool]:
        return self._call(lambda: self._backend.discard(keys))

    def put_small(self, name: str, value: bytes) -> bool:
        return self._call(lambda: self._backend.put_small(name, value))

    def get_small(self, name: str) -> bytes | None:
        return self._call(lambda: self._backend.get_small(name))

    def stats(self) -> dict[str, float]:
        return self._call(lambda: self._backend.stats())

    def clear(self) -> None:
        self._call(lambda: self._backend.clear())

    def close(self) -> None:
        self._call(lambda: self._backend.close())
        self._threads.stop()

    def objects(self) -> Iterator[StoredObject]:
        yield from self._call(lambda: list(self._backend.objects()))

    def probe(self) -> None:
        self._call(lambda: self._backend.probe())

    def _call(self, work: Callable[[], Result]) -> Result:
        future = self._threads.submit(work)
        if not wait([future], self._deadline_s).done:
            raise AssertionError(f"a call took longer than {self._deadline_s} s")
        return future.result()
