"""Real Mooncake stores on free loopback ports, each `kvloop store` in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
from running import free_port, wait_for

from kvloop.shared_cache.backends.mooncake.masters import connect_error


class MooncakeStore:
    """`kvloop store`: the master is its child; with `master` it is a store node of that one."""

    def __init__(
        self,
        log: Path,
        segment_bytes: int = 64 << 20,
        restart_master: bool = False,
        *flags: str,
        master: str = "",
    ):
        self.port, self.metrics_port = free_port(), free_port()
        self.address = master or f"127.0.0.1:{self.port}"
        self._log = log
        flags += ("--master", master) if master else self._ports()
        flags += ("--restart-master",) if restart_master else ()
        size = ("--segment-size", repr(segment_bytes / 2**30))
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kvloop.cli", "store", *size, *flags],
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )
        self.wait_for_line("store ready")

    def _ports(self) -> tuple[str, ...]:
        return ("--port", str(self.port), "--metrics-port", str(self.metrics_port))

    @property
    def config(self) -> dict[str, object]:
        """The extra config of a backend on this store."""
        return {
            "master_server_address": self.address,
            "master_metrics_port": self.metrics_port,
        }

    @property
    def segment(self) -> str:
        """The segment's name."""
        found = re.search(r"store ready: .*segment ([^,\s]+)", self.log_text())
        assert found is not None, self.log_text()
        return found[1]

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

    def kill(self) -> None:
        """SIGKILL; its master goes with it."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        try:
            return self.process.wait(60)  # with an SSD it takes its time
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextlib.contextmanager
def running(store: MooncakeStore) -> Iterator[MooncakeStore]:
    """Killed at the end."""
    try:
        yield store
    finally:
        store.kill()


@contextlib.contextmanager
def etcd(folder: Path) -> Iterator[str | None]:
    """`etcd://…` of a real one, stopped at the end; None where it is not installed."""
    binary = shutil.which("etcd")
    if binary is None:
        yield None
        return
    client, peer = free_port(), free_port()
    client_url, peer_url = (f"http://127.0.0.1:{port}" for port in (client, peer))
    command = [binary, "--data-dir", str(folder / "etcd"), "--log-level", "error"]
    command += ["--listen-client-urls", client_url, "--advertise-client-urls", client_url]
    command += ["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url]
    command += ["--initial-cluster", f"default={peer_url}"]
    with (folder / "etcd.log").open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL)
    try:
        wait_for("etcd", lambda: connect_error("127.0.0.1", client) is None)
        yield f"etcd://127.0.0.1:{client}"
    finally:
        process.kill()
        process.wait()
