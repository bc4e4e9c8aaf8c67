"""The pages that the central store still lacks, in the order in which they came."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from itertools import islice
from typing import NamedTuple


class Added(NamedTuple):
    """What became of keys; those that were in it before are in neither."""

    new: list[bytes]
    refused: list[bytes]


class Outbox:
    """A bounded queue of keys, each in it once; thread-safe.

    Full, it refuses what is new: the pages of a prompt are of use only behind the earlier ones.
    """

    def __init__(self, max_pages: int) -> None:
        self._max_pages = max_pages
        self._change = threading.Condition()
        self._keys: dict[bytes, None] = {}
        self._under_way: frozenset[bytes] = frozenset()
        self._is_woken = False

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def room(self) -> int:
        """Keys that it would still take."""
        return max(0, self._max_pages - len(self._keys))

    def add(self, keys: Sequence[bytes]) -> Added:
        """Queue those that are not in it, as many as there is room for."""
        with self._change:
            new = list(dict.fromkeys(key for key in keys if key not in self._keys))
            room = self.room
            self._keys.update(dict.fromkeys(new[:room]))
            self._change.notify_all()
            return Added(new[:room], new[room:])

    def first(self, n: int) -> list[bytes]:
        """The oldest keys, which stay; they are under way until `settle`."""
        with self._change:
            keys = list(islice(self._keys, n))
            self._under_way = frozenset(keys)
            return keys

    def settle(self, done: Collection[bytes] = ()) -> None:
        """Nothing is under way any more, and these need not be sent again."""
        with self._change:
            self._under_way = frozenset()
            self._remove(done)

    def drop(self, keys: Collection[bytes] | None, timeout_s: float) -> list[bytes]:
        """Take these, or all, out, and wait for those under way; returns what was in it."""
        with self._change:
            dropped = [key for key in (self._keys if keys is None else keys) if key in self._keys]
            self._remove(dropped)
            self._change.wait_for(lambda: not self._under_way.intersection(dropped), timeout_s)
            return dropped

    def wait(self, timeout_s: float) -> None:
        """Until it holds something, or was woken, or the time is over."""
        with self._change:
            self._change.wait_for(lambda: bool(self._keys) or self._is_woken, timeout_s)
            self._is_woken = False

    def wake(self) -> None:
        """Let `wait` return, this time or the next."""
        with self._change:
            self._is_woken = True
            self._change.notify_all()

    def _remove(self, keys: Collection[bytes]) -> None:
        for key in keys:
            self._keys.pop(key, None)
        self._change.notify_all()
