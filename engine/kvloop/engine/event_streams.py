"""Events on their way from the engine to the HTTP responses that stream them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

Event = TypeVar("Event")
_LOOK_S = 0.05


class EventStreams(Generic[Event]):
    """One queue for each open response, by id; used from the event loop only."""

    def __init__(self) -> None:
        self._queues: dict[str, asyncio.Queue[Event | None]] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def __contains__(self, key: str) -> bool:
        return key in self._queues

    async def wait_empty(self, timeout_s: float) -> bool:
        """Wait until no response is open, at most so long; whether none is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._queues:
                    await asyncio.sleep(_LOOK_S)
        return not self._queues

    @contextmanager
    def open(self, key: str) -> Iterator[AsyncIterator[Event]]:
        """Events put under `key` from now on; they end where `end_all` was called."""
        assert key not in self._queues, key
        events = self._queues[key] = asyncio.Queue()
        try:
            yield _read(events)
        finally:
            del self._queues[key]

    def put(self, key: str, event: Event) -> None:
        """Events of a response that is gone are dropped."""
        if key in self._queues:
            self._queues[key].put_nowait(event)

    def end_all(self) -> None:
        """Nothing follows: each response ends without a last event, which its reader notices."""
        for events in self._queues.values():
            events.put_nowait(None)


async def _read(events: asyncio.Queue[Event | None]) -> AsyncIterator[Event]:
    while (event := await events.get()) is not None:
        yield event
