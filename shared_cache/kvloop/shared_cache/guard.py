"""The guard before a storage backend: deadlines, a circuit breaker, and re-opening by itself."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.epoch import read_epoch
from kvloop.shared_cache.factory import BackendOpener
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.session import Session
from kvloop.shared_cache.storage_errors import StorageUnavailable

GuardState = Literal["attached", "detached", "attaching", "draining", "open"]
Result = TypeVar("Result")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardConfig:
    """How long to wait for a backend, and when to leave it alone."""

    deadline_s: float = 3.0
    """For one call, its time in the queue included."""
    num_threads: int = 4
    """Calls at once."""
    max_failures: int = 2
    """Failed calls in a row that open the breaker; one stalled call does so too."""
    first_retry_s: float = 0.5
    """From the opening to the first attempt to attach again; doubles with each that fails."""
    max_retry_s: float = 15.0
    check_s: float = 5.0
    """Between looks at an attached backend: is it there, and has it kept its content?"""
    max_stuck_calls: int = 16
    """With more calls of earlier connections still hanging, no new connection is opened."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


class GuardedBackend:
    """A storage backend that never raises and never takes longer than a deadline.

    While it is not attached every call returns None at once. The first opening and every later one
    happens on a thread of the guard's, so that a node starts, and goes on, without L3. Without an
    opener it stays detached.

    A call that misses its deadline goes on behind the caller's back and keeps its slots until it
    ends: the caller frees them as always, and must write nothing more into them before that.
    """

    def __init__(
        self,
        opener: BackendOpener | None,
        pool: HostPool,
        *,
        name: str,
        namespace: bytes,
        config: GuardConfig | None = None,
    ) -> None:
        self._pool = pool
        self._name = name
        self._namespace = namespace
        self._config = config or GuardConfig()
        self._change = threading.Condition()
        self._state: GuardState = "attaching" if opener else "detached"
        self._last_error: str | None = None
        self._session: Session | None = None
        self._epoch: bytes | None = None
        self._tripped: Session | None = None  # may be fit for use again
        self._retired: list[Session] = []
        self._attached_at = 0.0
        self._retry_s = self._config.first_retry_s
        self._num_failures = 0
        self._counts = dict.fromkeys(("refused", "overloads", "stalls", "errors"), 0.0)
        if opener is not None:
            keeper = threading.Thread(
                target=self._keep, args=(opener,), name="l3-keeper", daemon=True
            )
            keeper.start()

    @property
    def state(self) -> GuardState:
        """`open` means that the breaker is: the backend is left alone until it works again."""
        return self._state

    @property
    def last_error(self) -> str | None:
        """Why the backend was last given up; stays after it came back."""
        return self._last_error

    @property
    def epoch(self) -> bytes | None:
        """Changes, within `check_s`, when the store has lost its content; None: never attached."""
        return self._epoch

    def exists(self, keys: Sequence[bytes]) -> list[bool] | None:
        """As the backend's; None where it did not answer. So for all calls below."""
        return self._call(lambda backend: backend.exists(keys))

    def get(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool] | None:
        """After None the slots may still be written to; free them."""
        return self._call(lambda backend: backend.get(keys, slots), slots)

    def set(self, keys: Sequence[bytes], slots: Sequence[int]) -> list[bool] | None:
        """After None the slots may still be read; free them."""
        return self._call(lambda backend: backend.set(keys, slots), slots)

    def delete(self, keys: Sequence[bytes]) -> list[bool] | None:
        """As the backend's."""
        return self._call(lambda backend: backend.delete(keys))

    def put_small(self, name: str, value: bytes) -> bool:
        """False where it was not stored, or perhaps not."""
        return self._call(lambda backend: backend.put_small(name, value)) or False

    def get_small(self, name: str) -> bytes | None:
        """None where there is no record or no answer."""
        return self._call(lambda backend: backend.get_small(name))

    def clear(self) -> bool:
        """Remove the namespace's pages and records; False where that is not certain."""
        return self._call(lambda backend: backend.clear() is None) or False

    def status(self) -> dict[str, Any]:
        """The admin API's view; never blocks."""
        session = self._session
        stats = session.backend.stats() if session is not None else {}
        return {
            "backend": self._name,
            "state": self._state,
            "last_error": self._last_error,
            "namespace": self._namespace.hex(),
            "epoch": self._epoch.hex() if self._epoch else None,
            "stats": self._counts | stats,
        }

    def wait_attached(self, timeout_s: float) -> bool:
        """Wait until the backend is attached; False at the deadline."""
        with self._change:
            return self._change.wait_for(lambda: self._state == "attached", timeout_s)

    def close(self, timeout_s: float = 5.0) -> bool:
        """Refuse new calls, let the running ones end, and close; False where some did not end."""
        with self._change:
            self._state = "draining"
            self._drop_session()
            self._retire_tripped()
            sessions = list(self._retired)
            self._change.notify_all()
        until = time.monotonic() + timeout_s
        is_closed = [s.closed.wait(max(0.0, until - time.monotonic())) for s in sessions]
        self._state = "detached"
        return all(is_closed)

    def _call(
        self, work: Callable[[StorageBackend], Result], slots: Sequence[int] = ()
    ) -> Result | None:
        session = self._session
        future = session.submit(work, slots) if session is not None else None
        if session is None or future is None:
            self._count("refused")
            return None
        wait([future], self._config.deadline_s)
        if future.done() or not self._give_up(session, future, slots):
            return self._outcome(session, future)
        return None

    def _give_up(self, session: Session, future: Future[Any], slots: Sequence[int]) -> bool:
        """The deadline is over; False where the call ended just now."""
        if session.cancel(future, slots):
            self._count("overloads")
            return True
        if future.done():
            return False
        self._count("stalls")
        self._trip(session, f"a call took longer than {self._config.deadline_s} s")
        return True

    def _outcome(self, session: Session, future: Future[Result]) -> Result | None:
        error = future.exception()
        if error is None:
            self._num_failures = 0
            return future.result()
        self._count("errors")
        self._num_failures += 1
        self._last_error = str(error) or repr(error)
        if self._num_failures >= self._config.max_failures:
            self._trip(session, self._last_error)
        return None

    def _trip(self, session: Session, reason: str) -> None:
        with self._change:
            if self._session is not session:
                return
            self._drop_session()
            if time.monotonic() - self._attached_at > self._config.max_retry_s:
                self._retry_s = self._config.first_retry_s
            self._open(reason)
            self._change.notify_all()

    def _open(self, reason: str) -> None:
        if (self._state, self._last_error) != ("open", reason):
            log.warning("storage backend %s is left alone: %s", self._name, reason)
        self._state, self._last_error = "open", reason

    def _drop_session(self) -> None:
        if self._session is not None:
            self._retire_tripped()
            self._tripped, self._session = self._session, None

    def _retire_tripped(self) -> None:
        if self._tripped is not None:
            self._tripped.retire()
            self._retired.append(self._tripped)
            self._tripped = None

    def _count(self, name: str) -> None:
        with self._change:
            self._counts[name] += 1

    def _keep(self, opener: BackendOpener) -> None:
        """The guard's thread: attach, and again after each opening of the breaker."""
        while self._state in ("attaching", "attached", "open"):
            if self._state != "attached":
                self._attempt(opener)
            with self._change:
                is_quiet = self._state == "attached" and not self._change.wait(self._config.check_s)
            if is_quiet:
                self._look()
            with self._change:
                if self._state == "open":
                    self._change.wait_for(lambda: self._state != "open", self._retry_s)

    def _look(self) -> None:
        session = self._session
        if session is None:
            return
        try:
            self._learn_epoch(session)
        except Exception as error:
            self._count("errors")
            self._trip(session, str(error) or repr(error))

    def _learn_epoch(self, session: Session) -> None:
        self._epoch = read_epoch(session, self._config.deadline_s) or self._epoch

    def _attempt(self, opener: BackendOpener) -> None:
        try:
            session = self._revive() or self._connect(opener)
        except Exception as error:
            with self._change:
                if self._state != "draining":
                    self._open(str(error) or repr(error))
                    self._retry_s = min(self._retry_s * 2, self._config.max_retry_s)
        else:
            with suppress(Exception):  # a store that serves all but this is found out by `_look`
                self._learn_epoch(session)
            self._attach(session)

    def _attach(self, session: Session) -> None:
        with self._change:
            self._tripped = None
            if self._state not in ("attaching", "open"):  # closed meanwhile
                session.retire()
                return
            if self._state == "open":
                log.warning("storage backend %s is attached again", self._name)
            self._state, self._session = "attached", session
            self._attached_at, self._num_failures = time.monotonic(), 0
            self._change.notify_all()

    def _revive(self) -> Session | None:
        """The session that tripped, where it works again; otherwise it is retired."""
        session = self._tripped
        try:
            if session is not None and session.is_sound(self._config.deadline_s):
                return session
        except Exception as error:
            log.debug("storage backend %s: the old connection is dead: %s", self._name, error)
        with self._change:
            self._retire_tripped()
        return None

    def _connect(self, opener: BackendOpener) -> Session:
        with self._change:
            self._retired = [s for s in self._retired if not s.closed.is_set()]
            num_stuck = sum(session.num_calls for session in self._retired)
        if num_stuck > self._config.max_stuck_calls:
            raise StorageUnavailable(f"{num_stuck} calls of earlier connections still hang")
        session = Session(opener(), self._pool, self._config.num_threads)
        try:
            if not session.is_sound(self._config.deadline_s):
                raise StorageUnavailable("opened, but does not answer")
        except BaseException:
            session.retire()
            with self._change:
                self._retired.append(session)
            raise
        return session
