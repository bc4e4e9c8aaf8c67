"""How the bytes of pages move between the host pool and open files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple


class Transfer(NamedTuple):
    """One object, from the start of an open file to a head group of a slot, or back."""

    fd: int
    slot: int
    group: int


class PageIO(ABC):
    """Moves batches of objects of the pool it was made for; thread-safe.

    An object is `pool.shape.object_bytes` long (a multiple of 4 KiB), starts at
    `pool.address(slot, group)` (4 KiB aligned) and at offset 0 of its file. Calls block until the
    whole batch has ended: afterwards nothing reads or writes the slots or the files any more.
    """

    is_direct: bool = False
    """Whether files must be opened with O_DIRECT."""

    @abstractmethod
    def read(self, transfers: Sequence[Transfer]) -> list[int]:
        """Bytes read of each, in order; fewer than an object at the file's end; -errno where it
        failed."""

    @abstractmethod
    def write(self, transfers: Sequence[Transfer]) -> list[int]:
        """The object's length for each that is written whole, else -errno."""

    @abstractmethod
    def forget(self, fd: int) -> None:
        """The file is about to be closed: drop what is kept for it."""

    def stats(self) -> dict[str, float]:
        """Counters of its own, shown among the store's; never blocks."""
        return {}

    @abstractmethod
    def close(self) -> None:
        """Let go of threads, rings and registered memory; no call is running nor will follow."""
