"""The storage backend (L3): what every shared store can do for pages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from kvloop.shared_cache.storage_errors import StorageUnsupported

PROBE_KEY = b"kvloop-probe".ljust(32, b"\x00")


class StoredObject(NamedTuple):
    """One object of a store, as a listing shows it."""

    namespace: bytes
    key: bytes | None
    """Of the page; None for a small record."""
    group: int
    """Head group; 0 for a small record."""
    num_bytes: int
    used_at: float | None
    """Seconds since the epoch when it was last used; None where the store does not tell."""


class StorageBackend(ABC):
    """One namespace of a shared store; thread-safe, and every call takes a batch.

    A key is a page's 32-byte digest and a slot a slot of the host pool that the backend was opened
    with; a page is stored as one object for each head group and exists when all of them do. The
    answers have one entry for each key, in order. A missing page is False, never an exception; a
    fault of the store itself raises StorageError. Calls may block: the guard puts deadlines on
    them, and the slots stay the call's until it returns.
    """

    @abstractmethod
    def exists(self, keys: Sequence[bytes]) -> list[bool]:
        """Say which pages are stored."""

    @abstractmethod
    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        """Read each page into its slot; where False, the slot's content is undefined.

        Trailers are not checked here.
        """

    @abstractmethod
    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool]:
        """Store each page from its sealed slot; True once it is readable by all.

        The first successful set wins: a page that is stored already is kept, and is True.
        False where there is no room.
        """

    @abstractmethod
    def delete(self, keys: Sequence[bytes]) -> list[bool]:
        """Remove pages; True where one was there and is gone."""

    def discard(self, keys: Sequence[bytes]) -> list[bool]:
        """Remove pages that were read and found damaged; of several copies only the one read."""
        return self.delete(keys)

    @abstractmethod
    def put_small(self, name: str, value: bytes) -> bool:
        """Store a record of a few KiB under any name; the last put wins. False: no room."""

    @abstractmethod
    def get_small(self, name: str) -> bytes | None:
        """Return a record, or None where there is none."""

    @abstractmethod
    def stats(self) -> dict[str, float]:
        """Counters of this process's use; never blocks."""

    @abstractmethod
    def clear(self) -> None:
        """Remove this namespace's pages and records, and no others."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections and threads; no call is running nor will one follow."""

    def objects(self) -> Iterator[StoredObject]:
        """List the whole store, the objects of other namespaces too, in no order.

        What is stored or removed meanwhile may or may not be seen. Raises StorageUnsupported where
        the store cannot list.
        """
        raise StorageUnsupported(f"{type(self).__name__} cannot list what it stores")

    def probe(self) -> None:
        """Raise StorageError where the store does not serve; override if `exists` cannot tell."""
        self.exists([PROBE_KEY])


BackendOpener = Callable[[], StorageBackend]
"""Opens a backend; may be called again and again, and raises StorageError where there is none."""


def leading_run(found: Sequence[bool]) -> int:
    """Number of True entries before the first False."""
    return next((i for i, is_there in enumerate(found) if not is_there), len(found))
