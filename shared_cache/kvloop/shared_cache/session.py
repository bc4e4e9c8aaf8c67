"""One opened backend with the threads that call it, until its last call has ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import TypeVar

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.workers import Workers

Result = TypeVar("Result")
log = logging.getLogger(__name__)


class Session:
    """Runs calls on `num_threads` threads of its own; thread-safe.

    A call owns its slots, beside its caller, until it really ends: a backend that stalls may still
    read or write them after the caller has given up. A retired session takes no more calls and
    closes its backend once the last one has ended, never under a running call.
    """

    def __init__(self, backend: StorageBackend, pool: HostPool, num_threads: int) -> None:
        self.backend = backend
        self.closed = threading.Event()
        """Set when the backend is closed."""
        self._pool = pool
        self._workers = Workers(num_threads, "l3-call")
        self._lock = threading.Lock()
        self._num_calls = 0
        self._is_retired = False

    @property
    def num_calls(self) -> int:
        """Calls that have not ended."""
        return self._num_calls

    def submit(
        self, work: Callable[[StorageBackend], Result], slots: Sequence[int] = ()
    ) -> Future[Result] | None:
        """Queue a call that uses `slots`; None where the session is retired."""
        with self._lock:
            if self._is_retired:
                return None
            self._num_calls += 1
        self._pool.retain(slots)
        return self._workers.submit(self._run, work, slots)

    def cancel(self, future: Future[Result], slots: Sequence[int] = ()) -> bool:
        """Take a call back that no thread has begun; False where one has."""
        if not future.cancel():
            return False
        self._end(slots)
        return True

    def is_sound(self, deadline_s: float) -> bool:
        """Probe the backend; raises what it raises, and is False where it stalls."""
        future = self.submit(lambda backend: backend.probe())  # the backend's own
        if future is None:
            return False
        if not wait([future], deadline_s).done:
            self.cancel(future)
            return False
        future.result()
        return True

    def retire(self) -> None:
        """Take no more calls; close the backend when the last has ended."""
        with self._lock:
            if self._is_retired:
                return
            self._is_retired = True
            is_idle = not self._num_calls
        if is_idle:
            self._close()

    def _run(self, work: Callable[[StorageBackend], Result], slots: Sequence[int]) -> Result:
        try:
            return work(self.backend)
        finally:
            self._end(slots)

    def _end(self, slots: Sequence[int]) -> None:
        self._pool.free(slots)
        with self._lock:
            self._num_calls -= 1
            is_last = self._is_retired and not self._num_calls
        if is_last:
            self._close()

    def _close(self) -> None:
        self._workers.submit(self._close_backend)
        self._workers.stop()

    def _close_backend(self) -> None:
        try:
            self.backend.close()
        except Exception:
            log.warning("closing a storage backend failed", exc_info=True)
        self.closed.set()


class RetiredSessions:
    """Sessions and opening threads that were given up and may still hang; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: list[Session] = []
        self._keepers: list[threading.Thread] = []

    def add(self, session: Session) -> None:
        """Retire a session; it is remembered until its last call has ended."""
        session.retire()
        with self._lock:
            self._sessions = [s for s in (*self._sessions, session) if not s.closed.is_set()]

    def add_keeper(self, keeper: threading.Thread) -> None:
        """Remember a thread that was told to end, and may hang in opening a backend."""
        with self._lock:
            self._keepers = [k for k in (*self._keepers, keeper) if k.is_alive()]

    @property
    def num_stuck(self) -> int:
        """Calls and openings that have not ended."""
        with self._lock:
            num_calls = sum(session.num_calls for session in self._sessions)
            return num_calls + sum(keeper.is_alive() for keeper in self._keepers)
