"""The registry of nodes: who is there, what they said last, and what we have sent them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import msgspec

from kvloop.shared_cache.wire import NodeRecord, Role

NodeState = Literal["ready", "starting", "suspect", "lost"]


@dataclass(slots=True, kw_only=True)
class _Entry:
    record: NodeRecord
    seen_at: float
    suspect: bool = False
    """A request found it unreachable since it was last heard of."""


class NodeRegistry:
    """Nodes by URL. Used from the event loop only; needs no lock."""

    def __init__(self, expiry_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._expiry_s = expiry_s
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._in_flight: Counter[str] = Counter()
        self.problems: dict[str, str] = {}
        """What is wrong with a node named on the command line, by URL."""

    def update(self, record: NodeRecord) -> None:
        """Take what a node says of itself; its earlier incarnation at this URL is forgotten."""
        record = msgspec.structs.replace(record, url=record.url.rstrip("/"))
        for url, entry in list(self._entries.items()):
            if entry.record.incarnation == record.incarnation and url != record.url:
                del self._entries[url]
        self._entries[record.url] = _Entry(record=record, seen_at=self._clock())
        self._forget_long_gone()

    def ready(self, role: Role) -> list[NodeRecord]:
        """Nodes that may get requests now, in the order of their URLs."""
        records = (e.record for e in self._entries.values() if self._state(e) == "ready")
        return sorted((r for r in records if r.role == role), key=lambda record: record.url)

    def states(self) -> list[tuple[NodeRecord, NodeState]]:
        """Every node that was heard of in the last minutes."""
        return [(entry.record, self._state(entry)) for entry in self._entries.values()]

    def is_alive(self, record: NodeRecord) -> bool:
        """Whether this very incarnation was heard of lately."""
        entry = self._entries.get(record.url)
        if entry is None or entry.record.incarnation != record.incarnation:
            return False
        return self._clock() - entry.seen_at <= self._expiry_s

    def suspect(self, record: NodeRecord) -> None:
        """Send it nothing until it is heard of again."""
        entry = self._entries.get(record.url)
        if entry is not None and entry.record.incarnation == record.incarnation:
            entry.suspect = True

    def incarnation_at(self, url: str) -> str | None:
        """The incarnation that answers at `url`, as far as is known."""
        entry = self._entries.get(url.rstrip("/"))
        return entry.record.incarnation if entry is not None else None

    @contextmanager
    def in_flight(self, *incarnations: str) -> Iterator[None]:
        """Count a request as running on these nodes."""
        self._in_flight.update(incarnations)
        try:
            yield
        finally:
            self._in_flight.subtract(incarnations)
            self._in_flight += Counter()  # drops zeroes

    def load(self, record: NodeRecord) -> int:
        """Requests on the node: as it said, or as we sent since, whichever is more."""
        return max(record.load.running + record.load.waiting, self._in_flight[record.incarnation])

    def _state(self, entry: _Entry) -> NodeState:
        if self._clock() - entry.seen_at > self._expiry_s:
            return "lost"
        if entry.suspect:
            return "suspect"
        return "ready" if entry.record.ready else "starting"

    def _forget_long_gone(self) -> None:
        horizon = self._clock() - 60 * self._expiry_s
        for url, entry in list(self._entries.items()):
            if entry.seen_at < horizon:
                del self._entries[url]
