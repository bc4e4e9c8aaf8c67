"""A store that a tool has opened: every call ends by a deadline, and a fault is an error."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from itertools import islice
from typing import TypeVar

from kvloop.shared_cache.backend import StorageBackend, StoredObject
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.session import Session
from kvloop.shared_cache.storage_errors import StorageUnavailable
from kvloop.shared_cache.store_tools.address import StoreAddress, leaves
from kvloop.shared_cache.workers import Workers

Result = TypeVar("Result")

_LISTED_AT_ONCE = 1000
_CLOSE_S = 5.0
_unended: list[Callable[[float], bool]] = []


def all_ended(timeout_s: float) -> bool:
    """Wait for what goes on behind stores that were let go; False where a call still hangs.

    A process must not wait for that at its end, as the store's client library would.
    """
    until = time.monotonic() + timeout_s
    _unended[:] = [ends for ends in _unended if not ends(max(0.0, until - time.monotonic()))]
    return not _unended


class OpenStore:
    """One namespace of a store; for one thread, but calls that were begun run beside it.

    Not the guard: that retries in the background, answers None where a person wants to know why,
    and begins an epoch, which a mere look at a store must not.
    """

    def __init__(
        self,
        address: StoreAddress,
        pool: HostPool,
        namespace: bytes,
        deadline_s: float,
        *,
        may_be_new: bool = False,
    ) -> None:
        """Raise ConfigError, or StorageError where there is no such store by the deadline.

        `deadline_s` is for opening it, for each call, and for each thousand objects of a listing.
        A directory that is not there is made only where the store `may_be_new`.
        """
        self.label = address.label
        self.pool = pool
        self.namespace = namespace
        self._deadline_s = deadline_s
        self._is_stuck = False
        opener = address.opener(pool, namespace)

        def opened() -> StorageBackend:  # all of it on a thread: a lost mount hangs at the look too
            if not may_be_new:
                _require_folders(address)
            return opener()

        opening = Workers(1, "cache-open")
        future = opening.submit(opened)
        opening.stop()
        self._session = Session(self._finish(future), pool, num_threads=1)

    def __enter__(self) -> OpenStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.retire()
        # Waited for: some stores cannot be opened twice.
        if not self._session.closed.wait(0 if self._is_stuck else _CLOSE_S):
            _unended.append(self._session.closed.wait)

    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        """As the backend's; so for all below."""
        return self._call(lambda backend: backend.exists(keys))

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        return self.begin_get(keys, slots)()

    def begin_get(self, keys: Sequence[bytes], slots: Sequence[int]) -> Callable[[], list[bool]]:
        """Start reading; call what is returned for the answer."""
        future = self._begin(lambda backend: backend.get(keys, slots), slots)
        return lambda: self._finish(future)

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        return self._call(lambda backend: backend.set(keys, slots), slots)

    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        return self._call(lambda backend: backend.delete(keys))

    def put_small(self, name: str, value: bytes) -> bool:
        return self._call(lambda backend: backend.put_small(name, value))

    def get_small(self, name: str) -> bytes | None:
        return self._call(lambda backend: backend.get_small(name))

    def clear(self) -> None:
        self._call(lambda backend: backend.clear())

    def stats(self) -> dict[str, float]:
        return self._call(lambda backend: backend.stats())

    def objects(self) -> Iterator[StoredObject]:
        """List all namespaces; calls may come between."""
        objects = self._call(lambda backend: backend.objects())
        while some := self._call(lambda _: list(islice(objects, _LISTED_AT_ONCE))):
            yield from some

    def _call(self, work: Callable[[StorageBackend], Result], slots: Sequence[int] = ()) -> Result:
        return self._finish(self._begin(work, slots))

    def _begin(
        self, work: Callable[[StorageBackend], Result], slots: Sequence[int]
    ) -> Future[Result]:
        future = self._session.submit(work, slots)
        assert future is not None, "used after it was closed"
        return future

    def _finish(self, future: Future[Result]) -> Result:
        if not wait([future], self._deadline_s).done:
            self._is_stuck = True
            _unended.append(lambda timeout_s: bool(wait([future], timeout_s).done))
            raise StorageUnavailable(
                f"{self.label} did not answer within {self._deadline_s:g} s; is it there? "
                "(--timeout-s waits longer)"
            )
        return future.result()


def _require_folders(address: StoreAddress) -> None:
    """Backends make their directories, and a store whose path was mistyped would seem empty."""
    for _, leaf in leaves(address):
        if leaf.folder is not None and not os.path.isdir(leaf.folder):
            raise StorageUnavailable(f"{leaf.backend}: there is no such directory: {leaf.folder}")
