"""Work that is done each second on a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_PERIOD_S = 1.0
_STOP_S = 5.0
log = logging.getLogger(__name__)


class Ticker:
    """The thread begins with `start`, which may be called again and again, and ends with `stop`."""

    def __init__(self, work: Callable[[], None], name: str) -> None:
        self._work = work
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._name = name

    def start(self) -> None:
        """Begin, unless it has begun or was stopped."""
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._stopped.is_set():
                    self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    self._thread.start()

    def stop(self) -> None:
        """End; waits for what is being done, up to five seconds."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(_STOP_S)

    @property
    def is_stopped(self) -> bool:
        """Whether `stop` was called: long work is to end early."""
        return self._stopped.is_set()

    def _run(self) -> None:
        while not self._stopped.wait(_PERIOD_S):
            try:
                self._work()
            except Exception:
                log.exception("%s: goes on after an error", self._name)
