"""Attach, detach and clear of the shared cache in the engine process, beside the running loop."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import msgspec

from kvloop.engine.messages import AttachStorage, ClearStorage, DetachStorage, Reply, StorageAction
from kvloop.shared_cache.backend import BackendOpener
from kvloop.shared_cache.backend_config import PrefetchLimits, split_prefetch_settings
from kvloop.shared_cache.config_digest import config_digest
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.guard import ClearOutcome, GuardedBackend
from kvloop.shared_cache.hicache_names import PrefetchPolicy, WritePolicy
from kvloop.shared_cache.pod_variables import expanded
from kvloop.shared_cache.storage_change import EXTRA_CONFIG, StorageChange

log = logging.getLogger("kvloop.engine")
_SETTLE_S = 3.0
_LOOP_S = 10.0

Send = Callable[[Reply], None]


class Policies(Protocol):
    """What the admin API may change in a scheduler, and what it shows of it."""

    def set_policies(
        self, prefetch_policy: PrefetchPolicy | None, write_policy: WritePolicy | None
    ) -> None:
        """On the loop's thread; None: leave it. Raise ConfigError for what cannot be."""

    def set_prefetch_limits(
        self,
        threshold: int | None,
        timeout_base: float | None,
        timeout_per_ki_token: float | None,
    ) -> None:
        """On the loop's thread, or before it turns; None: leave it."""

    def policies(self) -> dict[str, str]:
        """Those in force, by the names of the API's fields; on any thread."""


class _Answer(NamedTuple):
    status: int
    body: dict[str, Any]


class StorageAdmin:
    """One action at a time, each on a thread of its own: neither loop nor link waits for it."""

    def __init__(
        self,
        guard: GuardedBackend,
        scheduler: Policies,
        send: Send,
        dynamic_modules: tuple[str, ...] = (),
        *,
        admin_key: str | None = None,
        attached: StorageChange | None = None,
    ) -> None:
        """`attached` is what the guard was made with; `admin_key` keys the config's digest."""
        self._admin_key = admin_key
        self._digest = self._digest_of(attached or StorageChange())
        self._guard, self._scheduler, self._send = guard, scheduler, send
        self._dynamic_modules = dynamic_modules
        self._lock = threading.Lock()
        self._running: str | None = None
        self._for_loop: queue.SimpleQueue[_LoopCall] = queue.SimpleQueue()

    def status(self) -> dict[str, Any]:
        """The answer to GET; never blocks."""
        return {
            **self._guard.status(),
            "config_digest": self._digest,
            "policies": self._scheduler.policies(),
        }

    def start(self, action: StorageAction) -> None:
        """Begin an action, or refuse it while another runs; its reply comes when it is done."""
        with self._lock:
            busy = self._running
            self._running = busy or _NAMES[type(action)]
        if busy is not None:
            self._send(_reply(action.call, _error(409, f"{busy} is still running; ask again")))
            return
        name = f"admin-{self._running}"
        threading.Thread(target=self._run, args=(action,), name=name, daemon=True).start()

    def turn(self) -> None:
        """On the loop's thread, at each turn: do what actions left to it."""
        while not self._for_loop.empty():
            self._for_loop.get().run()

    def _run(self, action: StorageAction) -> None:
        try:
            answer = self._answer(action)
        except ConfigError as error:
            answer = _error(400, str(error))
        except Exception as error:
            log.exception("an admin action failed")
            answer = _error(500, f"{type(error).__name__} in {_NAMES[type(action)]}")
        finally:
            # Before the reply: who has it may ask for the next at once.
            self._running = None
        self._send(_reply(action.call, answer))

    def _answer(self, action: StorageAction) -> _Answer:
        match action:
            case AttachStorage(change=change):
                return self._change(change)
            case DetachStorage(timeout_s=timeout_s):
                self._guard.detach(timeout_s)
                self._digest = None
                return _Answer(200, self.status())
            case ClearStorage(timeout_s=timeout_s):
                return self._clear(timeout_s)

    def _change(self, change: StorageChange) -> _Answer:
        limits, opener = self._prepare(change)
        if not self._tell_loop(change, limits):
            return _error(503, f"the engine took no new policies within {_LOOP_S} s; ask again")
        if opener is not None and change.backend is not None:
            self._guard.attach(opener, change.backend)
            self._digest = self._digest_of(change)
            self._guard.wait_settled(_SETTLE_S)
        return _Answer(200, self.status())

    def _digest_of(self, change: StorageChange) -> str | None:
        return config_digest(self._admin_key, change.backend, change.extra_config)

    def _prepare(self, change: StorageChange) -> tuple[PrefetchLimits, BackendOpener | None]:
        """All that can be wrong is found here, before anything has changed."""
        if change.backend is None:
            return PrefetchLimits(), None
        guard = self._guard
        try:
            limits, _ = split_prefetch_settings(change.extra_config)
            opener = backend_opener(
                change.backend,
                expanded(change.extra_config),
                guard.pool,
                guard.namespace,
                self._dynamic_modules,
            )
        except ConfigError as error:
            raise ConfigError(f"{EXTRA_CONFIG}: {error}") from None
        return limits, opener

    def _tell_loop(self, change: StorageChange, limits: PrefetchLimits) -> bool:
        """Raises what the scheduler raises; False where the loop's turn did not come in time."""
        policies = (change.prefetch_policy, change.write_policy)
        if policies == (None, None) and limits == PrefetchLimits():
            return True

        def apply() -> None:
            if policies != (None, None):
                self._scheduler.set_policies(*policies)
            self._scheduler.set_prefetch_limits(*limits)

        call = _LoopCall(apply)
        self._for_loop.put(call)
        return call.wait(_LOOP_S)

    def _clear(self, timeout_s: float) -> _Answer:
        started = time.monotonic()
        outcome = self._guard.clear(timeout_s)
        seconds = round(time.monotonic() - started, 3)
        if outcome == "cleared":
            return _Answer(200, {"cleared": True, "seconds": seconds})
        return _error(_CLEAR_STATUS[outcome], self._why_not_cleared(outcome, timeout_s))

    def _why_not_cleared(self, outcome: ClearOutcome, timeout_s: float) -> str:
        status = self._guard.status()
        if outcome == "unfinished":
            return f"not cleared within {timeout_s} s; it goes on"
        if outcome == "failed":
            return f"not cleared, or in part only: {status['last_error']}"
        return f"not cleared: no storage backend answers, its state is {status['state']}"


class _LoopCall:
    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._done: Future[None] = Future()

    def run(self) -> None:
        if not self._done.set_running_or_notify_cancel():
            return
        try:
            self._work()
        except Exception as error:
            self._done.set_exception(error)
        else:
            self._done.set_result(None)

    def wait(self, timeout_s: float) -> bool:
        try:
            self._done.result(timeout_s)
        except TimeoutError:
            if self._done.cancel():
                return False
            self._done.result(timeout_s)
        return True


_NAMES: dict[type, str] = {AttachStorage: "attach", DetachStorage: "detach", ClearStorage: "clear"}
_CLEAR_STATUS = {"unavailable": 409, "failed": 502, "unfinished": 504}


def _error(status: int, message: str) -> _Answer:
    return _Answer(status, {"error": {"message": message, "code": status}})


def _reply(call: int, answer: _Answer) -> Reply:
    return Reply(call, msgspec.json.encode(answer.body), answer.status)
