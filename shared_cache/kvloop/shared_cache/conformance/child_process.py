"""The test's end of a process of `child`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import asdict
from queue import Empty, SimpleQueue

import msgspec

from kvloop.shared_cache.conformance.child import Order
from kvloop.shared_cache.conformance.place import Place

_MODULE = "kvloop.shared_cache.conformance.child"
_LINE_S = 60.0


class ChildProcess:
    """Killed at the end of its `with`, whatever it does."""

    def __init__(
        self,
        place: Place,
        keys: Sequence[bytes],
        *,
        version: int = 0,
        pages_per_call: int = 4,
        dies_at: float | None = None,
        num_cycles: int = 0,
    ) -> None:
        order = Order(
            spec=asdict(place.spec),
            shape=asdict(place.shape),
            namespace=place.namespace,
            keys=list(keys),
            version=version,
            pages_per_call=pages_per_call,
            dies_at=dies_at,
            num_cycles=num_cycles,
        )
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end of `with`
        self._process = subprocess.Popen(
            [sys.executable, "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=_environment(),
        )
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        self._tell(msgspec.json.encode(order).decode())

    def __enter__(self) -> ChildProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._errors.close()

    def wait_ready(self) -> None:
        """Until it has opened the backend; then it waits for `go`."""
        line = self.next_line()
        while line is not None and line != "ready":  # libraries like to talk
            line = self.next_line()
        assert line == "ready", f"the other process ended early:\n{self.error_text()}"

    def go(self) -> None:
        """Let it begin; at the end of its work, let it close and end."""
        self._tell("go")

    def next_line(self) -> str | None:
        """What it says next; None at its end."""
        try:
            return self._lines.get(timeout=_LINE_S)
        except Empty:
            raise AssertionError(f"the other process said nothing for {_LINE_S} s") from None

    def wait_done(self) -> list[bool]:
        """Its answers, once all is written; it still has the backend open."""
        answers: list[bool] = []
        while (line := self.next_line()) != "done":
            assert line is not None, f"the other process ended early:\n{self.error_text()}"
            if line.startswith("["):
                answers += msgspec.json.decode(line, type=list[bool])
        return answers

    def wait_killed(self) -> None:
        """Until it has killed itself."""
        assert self._process.wait(_LINE_S) == -signal.SIGKILL, self.error_text()

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self._process.kill()
        self._process.wait(_LINE_S)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def error_text(self) -> str:
        """The end of what it wrote to stderr."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-3000:]

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line.decode().strip())
        self._lines.put(None)


def _environment() -> dict[str, str]:
    # It finds what this process finds: the module of a dynamic backend, for one.
    found = os.pathsep.join(path for path in sys.path if path)
    # What is freed goes back or is used again at once. With the C library's defaults, buffers that
    # short-lived threads have freed look like a leak for dozens of openings, and then no longer.
    frugal = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(128 << 10)}
    return {**os.environ, "PYTHONPATH": found, **frugal}
