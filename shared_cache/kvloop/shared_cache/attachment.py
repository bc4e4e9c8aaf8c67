"""One attached backend: its connection, its circuit breaker, and the thread that renews both."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, Literal, TypeVar

from kvloop.shared_cache.back_off import BackOff
from kvloop.shared_cache.backend import BackendOpener, StorageBackend
from kvloop.shared_cache.epoch import read_epoch
from kvloop.shared_cache.guard_shared import GuardShared, GuardState
from kvloop.shared_cache.manifest import keep_manifest
from kvloop.shared_cache.session import Session
from kvloop.shared_cache.storage_errors import StorageUnavailable

ClearOutcome = Literal["cleared", "failed", "unavailable", "unfinished"]
Result = TypeVar("Result")
log = logging.getLogger(__name__)


class Attachment:
    """From `start` to `end` one backend is opened, watched, given up and opened again.

    Calls never raise and never take longer than the deadline; while the state is not `attached`
    they return None at once. `open` means that the breaker is. Thread-safe.
    """

    def __init__(self, opener: BackendOpener, name: str, shared: GuardShared) -> None:
        self.name = name
        self.state: GuardState = "attaching"
        self.last_error: str | None = None
        """Why the backend was last given up; stays after it came back."""
        self.epoch: bytes | None = None
        """Changes, within `check_s`, when the store has lost its content; None: not known."""
        self.renewals = 0
        """How often what was known of the store's content became void, the first opening too."""
        self._opener = opener
        self._shared, self._config = shared, shared.config
        self._change = shared.change
        self._session: Session | None = None
        self._tripped: Session | None = None  # may be fit for use again
        self._retired: list[Session] = []  # may have calls that go on
        self._is_ended = False
        self._attached_at = 0.0
        self._back_off = BackOff(self._config.first_retry_s, self._config.max_retry_s)
        self._num_failures = 0
        self._describing: tuple[Session, Future[None] | None] | None = None
        self._keeper = threading.Thread(target=self._keep, name="l3-keeper", daemon=True)

    def start(self) -> None:
        """Begin to open the backend."""
        self._keeper.start()

    def end(self) -> None:
        """Refuse new calls; running ones go on, and the backend is closed behind the last."""
        with self._change:
            if self._is_ended:
                return
            self._is_ended, self.state = True, "draining"
            for session in (self._session, self._tripped):
                self._retire(session)
            self._session = self._tripped = None
            self._shared.retired.add_keeper(self._keeper)
            self._change.notify_all()

    def wait_drained(self, timeout_s: float) -> bool:
        """After `end`: wait until all calls have ended; False where some are abandoned."""
        until = time.monotonic() + timeout_s
        is_closed = [s.closed.wait(max(0.0, until - time.monotonic())) for s in self._retired]
        self._keeper.join(max(0.0, until - time.monotonic()))
        with self._change:
            self.state = "detached"
            self._change.notify_all()
        return all(is_closed) and not self._keeper.is_alive()

    def stats(self) -> dict[str, float]:
        """The backend's own counters; none of a backend that cannot tell."""
        session = self._session
        with suppress(Exception):
            if session is not None:
                return {k: float(v) for k, v in session.backend.stats().items()}
        return {}

    def call(
        self, work: Callable[[StorageBackend], Result], slots: Sequence[int] = ()
    ) -> Result | None:
        """The backend's answer; None where there was none in time."""
        session = self._session
        future = session.submit(work, slots) if session is not None else None
        if session is None or future is None:
            self._shared.counts.add("refused")
            return None
        wait([future], self._config.deadline_s)
        if future.done() or not self._give_up(session, future, slots):
            return self._outcome(session, future)
        return None

    def clear(self, timeout_s: float) -> ClearOutcome:
        """Remove the namespace's pages and records; a long one does not open the breaker."""
        session = self._session
        future = session.submit(lambda backend: backend.clear()) if session is not None else None
        if session is None or future is None:
            self._shared.counts.add("refused")
            return "unavailable"
        wait([future], timeout_s)
        if not future.done():
            return "unavailable" if session.cancel(future) else "unfinished"
        self._outcome(session, future)
        if future.exception() is not None:
            return "failed"
        self._begin_content()
        return "cleared"

    def _begin_content(self) -> None:
        """The store is empty now, and its epoch's record is gone with the rest."""
        with self._change:
            if not self._is_ended:
                self.epoch = None
                self.renewals += 1
        self._look()

    # --- the breaker ------------------------------------------------------------------------

    def _give_up(self, session: Session, future: Future[Any], slots: Sequence[int]) -> bool:
        """The deadline is over; False where the call ended just now."""
        if session.cancel(future, slots):
            self._shared.counts.add("overloads")
            return True
        if future.done():
            return False
        self._shared.counts.add("stalls")
        self._trip(session, f"a call took longer than {self._config.deadline_s} s")
        return True

    def _outcome(self, session: Session, future: Future[Result]) -> Result | None:
        error = future.exception()
        if error is None:
            self._num_failures = 0
            return future.result()
        self._shared.counts.add("errors")
        self._num_failures += 1
        self.last_error = _words(error)
        if self._num_failures >= self._config.max_failures:
            self._trip(session, self.last_error)
        return None

    def _trip(self, session: Session, reason: str) -> None:
        with self._change:
            if self._session is not session:
                return
            self._retire(self._tripped)
            self._tripped, self._session = session, None
            self._back_off.given_up_after(time.monotonic() - self._attached_at)
            self._open(reason)
            self._change.notify_all()

    def _open(self, reason: str) -> None:
        if (self.state, self.last_error) != ("open", reason):
            log.warning("storage backend %s is left alone: %s", self.name, reason)
        self.state, self.last_error = "open", reason

    def _retire(self, session: Session | None) -> None:
        if session is not None:
            self._shared.retired.add(session)
            self._retired = [s for s in (*self._retired, session) if not s.closed.is_set()]

    # --- the keeper's thread ------------------------------------------------------------------

    def _keep(self) -> None:
        """Attach, and again after each opening of the breaker."""
        while not self._is_ended:
            if self.state != "attached":
                self._attempt()
            with self._change:
                is_quiet = self.state == "attached" and not self._change.wait(self._config.check_s)
            if is_quiet:
                self._look()
            if self.state == "open":
                self._wait_to_retry()

    def _wait_to_retry(self) -> None:
        with self._change:
            self._change.wait_for(lambda: self._is_ended, self._back_off.wait_s)
            self._back_off.lengthen()

    def _look(self) -> None:
        session = self._session
        if session is None:
            return
        try:
            self._learn_epoch(session)
        except Exception as error:
            self._shared.counts.add("errors")
            self._trip(session, _words(error))
        else:
            self._describe(session)

    def _describe(self, session: Session) -> None:
        """See that the store has the manifest, waiting for nothing: it may keep no records."""
        manifest, last = self._shared.manifest, self._describing
        if manifest is None:
            return
        if last is not None and last[0] is session and last[1] and not last[1].done():
            return  # it hangs, with one thread of the session's; more must not follow
        self._describing = session, session.submit(lambda store: keep_manifest(store, manifest))

    def _learn_epoch(self, session: Session) -> bool:
        """False where the store has none that can be read."""
        epoch = read_epoch(session, self._config.deadline_s)
        with self._change:
            if epoch is not None and epoch != self.epoch and not self._is_ended:
                self.renewals += self.epoch is not None
                self.epoch = epoch
        return epoch is not None

    def _attempt(self) -> None:
        try:
            session = self._revive() or self._connect()
        except BaseException as error:  # whatever a backend's library throws, the keeper lives
            with self._change:
                if not self._is_ended:
                    self._open(_words(error))
                    self._change.notify_all()
        else:
            knows_epoch = False
            with suppress(Exception):  # a store that serves all but this is found out by `_look`
                knows_epoch = self._learn_epoch(session)
            self._attach(session, knows_epoch)
            self._describe(session)

    def _attach(self, session: Session, knows_epoch: bool) -> None:
        with self._change:
            self._tripped = None
            if self._is_ended:
                self._retire(session)
                return
            if self.state == "open":
                log.warning("storage backend %s is attached again", self.name)
            # Without an epoch nobody knows what the store lost meanwhile.
            if not self.renewals or not knows_epoch:
                self.renewals += 1
            self.state, self._session = "attached", session
            self._attached_at, self._num_failures = time.monotonic(), 0
            self._change.notify_all()

    def _revive(self) -> Session | None:
        """The session that tripped, where it works again; otherwise it is retired."""
        session = self._tripped
        try:
            if session is not None and session.is_sound(self._config.deadline_s):
                return session
        except Exception as error:
            log.debug("storage backend %s: the old connection is dead: %s", self.name, error)
        with self._change:
            self._retire(self._tripped)
            self._tripped = None
        return None

    def _connect(self) -> Session:
        if self._is_ended:
            raise StorageUnavailable("detached")
        num_stuck = self._shared.retired.num_stuck
        if num_stuck > self._config.max_stuck_calls:
            raise StorageUnavailable(f"{num_stuck} calls of earlier connections still hang")
        session = Session(self._opener(), self._shared.pool, self._config.num_threads)
        try:
            if not session.is_sound(self._config.deadline_s):
                raise StorageUnavailable("opened, but does not answer")
        except BaseException:
            with self._change:
                self._retire(session)
            raise
        return session


def _words(error: BaseException) -> str:
    return str(error) or repr(error)
