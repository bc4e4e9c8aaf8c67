"""Which resource is looked at next: pure, with the time passed in.

One look a key at a time; events that come meanwhile make one more look; errors wait longer and
longer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

GAP_S = 0.3
"""Between two looks at one key: a rollout's many events are one."""
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 15.0
"""Conditions tell the truth within 30 s, also after a fault."""


class Key(NamedTuple):
    """A resource of ours."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(slots=True, kw_only=True)
class _Entry:
    due: float
    ended: float = float("-inf")
    failures: int = 0
    started: float | None = None
    """None: nobody looks."""
    again: float | None = None
    """Asked for while somebody looks."""


@dataclass(slots=True, kw_only=True)
class WorkQueue:
    """Keys and when they are due."""

    _entries: dict[Key, _Entry] = field(default_factory=dict)

    def add(self, key: Key, now: float, after_s: float = 0.0) -> None:
        """Look at it then, or earlier where that was said already."""
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _Entry(due=now + after_s)
        elif entry.started is not None:
            entry.again = min(now + after_s, float("inf") if entry.again is None else entry.again)
        else:
            entry.due = min(entry.due, max(now + after_s, entry.ended + GAP_S))

    def take(self, now: float) -> Key | None:
        """The one that waits longest; it is the caller's until `done`, `failed` or `forget`."""
        free = [(entry.due, key) for key, entry in self._entries.items() if entry.started is None]
        if not free:
            return None
        due, key = min(free)
        if due > now:
            return None
        self._entries[key].started = now
        return key

    def done(self, key: Key, now: float, after_s: float) -> None:
        """Looked at; again after that at the latest."""
        self._entries[key].failures = 0
        self._end(key, now, after_s)

    def failed(self, key: Key, now: float, jitter: float) -> float:
        """Not well: the delay that follows, doubled each time. jitter: 0 to 1, at random."""
        entry = self._entries[key]
        doubled: float = FIRST_DELAY_S * 2.0 ** min(entry.failures, 20)
        delay = min(doubled, LONGEST_DELAY_S) * (1 - jitter / 2)
        entry.failures += 1
        self._end(key, now, delay)
        return delay

    def forget(self, key: Key, now: float) -> None:
        """The resource is gone, unless an event came meanwhile that tells of a new one."""
        entry = self._entries[key]
        if entry.again is None:
            del self._entries[key]
        else:
            self.done(key, now, 0.0)

    def failures(self, key: Key) -> int:
        """In a row."""
        entry = self._entries.get(key)
        return entry.failures if entry else 0

    def next_due(self) -> float | None:
        """When somebody may take; None where nothing waits."""
        free = [entry.due for entry in self._entries.values() if entry.started is None]
        return min(free, default=None)

    def depth(self, now: float) -> int:
        """Keys that are due and not taken."""
        entries = self._entries.values()
        return sum(entry.started is None and entry.due <= now for entry in entries)

    def oldest_s(self, now: float) -> float:
        """How long the first of those waits."""
        due = self.next_due()
        return max(0.0, now - due) if due is not None else 0.0

    def longest_s(self, now: float) -> float:
        """How long the longest look under way takes."""
        begun = [entry.started for entry in self._entries.values() if entry.started is not None]
        return now - min(begun) if begun else 0.0

    def _end(self, key: Key, now: float, after_s: float) -> None:
        entry = self._entries[key]
        wanted = now + after_s
        if entry.again is not None:
            wanted = min(wanted, entry.again)
        entry.started, entry.again, entry.ended = None, None, now
        entry.due = max(wanted, now + GAP_S)
