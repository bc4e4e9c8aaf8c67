"""A real memory server of the backend `nixl` on a free loopback port, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from running import free_port, wait_for

_COMMAND = ("-m", "kvloop.cli", "nixl-store")


class MemoryServer:
    """`environment` is added to the process's own; `start` again after `stop` keeps the port."""

    def __init__(
        self,
        log: Path,
        *arguments: str,
        segment_bytes: int = 64 << 20,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._log = log
        size = ("--segment-size", str(segment_bytes / 2**30))
        self._arguments = ("--port", str(self.port), *size, *arguments)
        self._environment = environment or {}
        self.start()

    def start(self) -> None:
        with self._log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, *_COMMAND, *self._arguments],
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | self._environment,
            )

        def is_ready() -> bool:
            text = self._log.read_text()
            assert self.process.poll() is None, f"ended early:\n{text}"
            return "memory server ready" in text

        try:
            wait_for("the memory server", is_ready)
        except BaseException:  # whoever asked for it has nothing to stop
            self.kill()
            raise

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
