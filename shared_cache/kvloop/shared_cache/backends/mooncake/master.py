"""The Mooncake master as a child process that cannot outlive its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time

from kvloop.shared_cache.backends.mooncake.library import master_binary
from kvloop.shared_cache.backends.mooncake.master_options import MasterOptions
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.storage_errors import StorageUnavailable

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl


class MooncakeMaster:
    """`mooncake_master` on a host's rpc and metrics ports."""

    def __init__(
        self, host: str, port: int, metrics_port: int, options: MasterOptions | None = None
    ) -> None:
        """Raise ConfigError where the binary cannot run or a port is taken."""
        self.address = f"{host}:{port}"
        self._host = host
        # One of several masters listens on its RPC port only while it leads.
        self._ready_port = metrics_port if options is not None and options.registry else port
        self._command = [
            str(master_binary()),
            f"--rpc_address={host}",
            f"--rpc_port={port}",
            f"--metrics_host={host}",
            f"--metrics_port={metrics_port}",
            "--enable_metric_reporting=false",
            "--logtostderr=true",
            "--minloglevel=2",  # errors only
            *(options or MasterOptions()).arguments,
        ]
        _require_free("--port", host, port)
        _require_free("--metrics-port", host, metrics_port)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the last process started."""
        return self._process.pid if self._process else None

    @property
    def exit_code(self) -> int | None:
        """Negative for a signal; None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    def start(self, deadline_s: float = 10.0) -> None:
        """Start, and wait until it listens; raises StorageUnavailable where it does not."""
        assert self._process is None or self.exit_code is not None, "the master runs"
        # Call from a thread that lives as long as the process: the kernel ends the child with it.
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent
        )
        until = time.monotonic() + deadline_s
        while not is_listening(self._host, self._ready_port):
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise StorageUnavailable(
                    f"the Mooncake master did not come up at {self.address} within {deadline_s} s "
                    f"(exit code {self.exit_code})"
                )
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self, deadline_s: float = 3.0) -> None:
        """End it, by force after the deadline."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(deadline_s)


def is_listening(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        socket.create_connection((host, port), 1.0).close()
    except OSError:
        return False
    return True


def _require_free(flag: str, host: str, port: int) -> None:
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise ConfigError(f"{flag} {port}: cannot listen on {host}: {error.strerror}") from None


def _die_with_parent() -> None:
    os.setpgid(0, 0)  # Ctrl-C must not end the master before the store has left it
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
