"""One part as a child process: its own process group, its own log, gone when we are."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Child:
    """A started process. Its group, and so all it starts itself, ends with `kill_group`."""

    def __init__(self, name: str, argv: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        self.started_at = time.monotonic()
        parent = os.getpid()
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                preexec_fn=lambda: _die_with(parent),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.started_at

    def exit_status(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        if self._process.returncode is not None:
            return self._process.returncode
        # WNOWAIT: it stays a zombie, so that its pid and group cannot become another's.
        ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def terminate(self) -> None:
        """Ask it to stop; it stops what it started itself."""
        if self.exit_status() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill_group(self) -> None:
        """End it and whatever it left behind, and reap it."""
        if self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def log_has(self, words: str) -> bool:
        """Whether any line of its log has these words."""
        with contextlib.suppress(OSError):
            return words in self.log.read_text(errors="replace")
        return False

    def last_lines(self, num: int) -> list[str]:
        """The end of its log."""
        with contextlib.suppress(OSError), self.log.open(errors="replace") as lines:
            return [line.rstrip() for line in deque(lines, maxlen=num)]
        return []


def _die_with(parent: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
