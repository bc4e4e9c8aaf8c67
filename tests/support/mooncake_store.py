"""A real Mooncake store on free loopback ports, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
from running import free_port, wait_for

_RUN = """
import sys
from kvloop.shared_cache.backends.mooncake.store_server import StoreConfig, run_store
port, metrics_port, segment_bytes, restart = map(int, sys.argv[1:])
config = StoreConfig(
    port=port,
    metrics_port=metrics_port,
    segment_bytes=segment_bytes,
    restart_master=bool(restart),
)
run_store(config, lambda line: print(line, flush=True))
"""


class MooncakeStore:
    """`run_store`: the master is its child."""

    def __init__(self, log: Path, segment_bytes: int = 64 << 20, restart_master: bool = False):
        self.port, self.metrics_port = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._log = log
        arguments = [self.port, self.metrics_port, segment_bytes, int(restart_master)]
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _RUN, *map(str, arguments)],
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        self.wait_for_line("store ready")

    def wait_for_line(self, text: str) -> None:
        def is_there() -> bool:
            assert self.process.poll() is None, f"ended early:\n{self.log_text()}"
            return text in self.log_text()

        wait_for(f"{text!r} in the store's log", is_there)

    def log_text(self) -> str:
        return self._log.read_text()

    def master_pid(self) -> int | None:
        for child in psutil.Process(self.process.pid).children():
            if "mooncake_master" in child.name() and child.status() != psutil.STATUS_ZOMBIE:
                return child.pid
        return None

    def kill_master(self) -> None:
        pid = self.master_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_for("the master's end", lambda: self.master_pid() != pid)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
