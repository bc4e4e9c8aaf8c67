"""Simulated time: what is due, in order. Deterministic: equal times run as they were planned."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Event:
    """Something that is due; `cancel` it and it will not happen."""

    __slots__ = ("action", "at")

    def __init__(self, at: float, action: Callable[[], None]) -> None:
        self.at = at
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """It will not happen."""
        self.action = None


class Clock:
    """Seconds from the start of the simulation."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Event]] = []
        self._order = count()

    def at(self, when: float, action: Callable[[], None]) -> Event:
        """Plan an action; one that should have been is due now."""
        event = Event(max(when, self.now), action)
        heapq.heappush(self._due, (event.at, next(self._order), event))
        return event

    def run(self) -> None:
        """Until nothing is due any more."""
        while self._due:
            when, _, event = heapq.heappop(self._due)
            if event.action is not None:
                self.now = when
                event.action()
