"""One attempt of a decode node to get a prompt's KV from here, and when its writes are over."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from kvloop.shared_cache.wire import PrefillRequest

_REMEMBERED = 4096


class Attempt:
    """Guards the promise given to decode: once `cancel` says quiet, nothing writes any more."""

    def __init__(self, request: PrefillRequest) -> None:
        self.request = request
        self.deadline = time.monotonic() + request.timeout_s
        self._is_cancelled = False
        self._is_tainted = False
        self._num_writing = 0
        self._changed = threading.Condition()

    @property
    def is_cancelled(self) -> bool:
        return self._is_cancelled

    @contextmanager
    def writing(self) -> Iterator[bool]:
        """Yields whether the write may start; the attempt is not quiet while inside."""
        with self._changed:
            allowed = not self._is_cancelled
            self._num_writing += allowed
        try:
            yield allowed
        finally:
            with self._changed:
                self._num_writing -= allowed
                self._changed.notify_all()

    @property
    def is_tainted(self) -> bool:
        return self._is_tainted

    def taint(self) -> None:
        """A write failed and may be under way in part: the attempt never becomes quiet."""
        self._is_tainted = True

    def cancel(self, timeout_s: float) -> bool:
        """Let no further write start; returns whether the last one has ended in time."""
        with self._changed:
            self._is_cancelled = True
            over = self._changed.wait_for(lambda: self._num_writing == 0, timeout_s)
            return over and not self._is_tainted


class Attempts:
    """The attempts alive here; one that was cancelled before it came is refused when it comes."""

    def __init__(self) -> None:
        self._alive: dict[str, Attempt] = {}
        self._cancelled: OrderedDict[str, None] = OrderedDict()
        self._tainted: set[str] = set()
        self._lock = threading.Lock()

    def add(self, request: PrefillRequest) -> Attempt | None:
        """None when the attempt has been cancelled already."""
        with self._lock:
            if request.attempt in self._cancelled:
                return None
            return self._alive.setdefault(request.attempt, Attempt(request))

    def cancel(self, attempt_id: str, timeout_s: float) -> bool:
        """Whether the attempt is quiet: no write outstanding, none to come."""
        with self._lock:
            self._cancelled[attempt_id] = None
            while len(self._cancelled) > _REMEMBERED:
                self._cancelled.popitem(last=False)
            attempt = self._alive.get(attempt_id)
            if attempt is None:
                return attempt_id not in self._tainted
        return attempt.cancel(timeout_s)

    def cancel_all(self) -> None:
        """Let no further write of any attempt start; does not wait."""
        with self._lock:
            alive = list(self._alive.values())
        for attempt in alive:
            attempt.cancel(0)

    def remove(self, attempt: Attempt) -> None:
        """The attempt has ended: its pages here may go."""
        with self._lock:
            self._alive.pop(attempt.request.attempt, None)
            if attempt.is_tainted:
                self._tainted.add(attempt.request.attempt)
