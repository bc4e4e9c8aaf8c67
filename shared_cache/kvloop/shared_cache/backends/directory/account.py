"""Who may write how much: the bound on a store's bytes, and what goes when it is reached."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from kvloop.shared_cache.backends.directory.root import OpenRoot


class ObjectId(NamedTuple):
    """One object of any namespace; ordered by namespace, then key."""

    namespace: bytes
    key: bytes
    group: int


class Account(ABC):
    """Shared by all processes on one root; thread-safe, and never raises.

    It is advice: the files are the truth. Faults of its own are counted in `stats`.
    """

    @abstractmethod
    def reserve(self, root: OpenRoot, objects: Sequence[ObjectId], num_bytes: int) -> list[bool]:
        """Take room for objects of `num_bytes` each, before they are written; may evict others."""

    @abstractmethod
    def settle(self, stored: Sequence[ObjectId], failed: Sequence[ObjectId]) -> None:
        """What became of objects that room was taken for."""

    @abstractmethod
    def touch(self, objects: Sequence[ObjectId]) -> None:
        """They were used now: the first of them most recently."""

    @abstractmethod
    def removed(self, objects: Sequence[ObjectId]) -> None:
        """They are gone."""

    @abstractmethod
    def cleared(self, namespace: bytes) -> None:
        """All of a namespace's are gone."""

    @abstractmethod
    def ran_full(self, root: OpenRoot, num_bytes: int) -> None:
        """The file system had no room for that much: evict as much."""

    @abstractmethod
    def used_at(self, objects: Sequence[ObjectId]) -> dict[ObjectId, float]:
        """When they were last used, as far as it is known here."""

    @abstractmethod
    def stats(self) -> dict[str, float]:
        """Counters and sizes; never blocks."""

    @abstractmethod
    def close(self) -> None:
        """Write down what is not yet written, and end threads."""


class NoAccount(Account):
    """Without a bound nothing is counted nor evicted."""

    def reserve(self, root: OpenRoot, objects: Sequence[ObjectId], num_bytes: int) -> list[bool]:
        return [True] * len(objects)

    def settle(self, stored: Sequence[ObjectId], failed: Sequence[ObjectId]) -> None:
        pass

    def touch(self, objects: Sequence[ObjectId]) -> None:
        pass

    def removed(self, objects: Sequence[ObjectId]) -> None:
        pass

    def cleared(self, namespace: bytes) -> None:
        pass

    def ran_full(self, root: OpenRoot, num_bytes: int) -> None:
        pass

    def used_at(self, objects: Sequence[ObjectId]) -> dict[ObjectId, float]:
        return {}

    def stats(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        pass
