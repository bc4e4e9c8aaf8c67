"""Starts kvloop's real processes for tests, on free loopback ports, and stops them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

READY_S = 120.0
# For exact counts of reuse: by default a busy machine computes what it could have read.
EXACT = ("--hicache-storage-prefetch-policy", "wait_complete")
SECRET = "between-nodes"
ADMIN = "admin"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for(what: str, check: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """The first truthy value of `check`; fails naming what did not come."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = check()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come within {timeout_s} s")


def fetch(url: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    """(status, parsed JSON or text)."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {"Content-Type": "application/json", **(headers or {})}
    )
    try:
        with urllib.request.urlopen(request, timeout=180) as reply:
            return reply.status, _parsed(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, _parsed(error.read())
    except (urllib.error.URLError, ConnectionError) as error:
        return 0, str(error)


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode()


class Running:
    """One `kvloop …` process; `program` stands in for it."""

    def __init__(
        self,
        log: Path,
        *command: str,
        port: int | None = None,
        program: Sequence[str] = ("-m", "kvloop.cli"),
    ) -> None:
        self.log, self.port = log, port
        self.url = f"http://127.0.0.1:{port}"
        with log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, *program, *command],
                stdout=sink,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait_ready(self) -> Running:
        def is_ready() -> bool:
            assert self.process.poll() is None, f"ended early:\n{self.log.read_text()[-3000:]}"
            return fetch(f"{self.url}/readyz")[0] == 200

        wait_for(f"readiness of {self.log.stem}", is_ready, READY_S)
        return self

    def info(self) -> dict[str, Any]:
        status, body = fetch(f"{self.url}/server_info")
        assert status == 200, body
        return body

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples with these labels."""
        total = 0.0
        for line in fetch(f"{self.url}/metrics")[1].splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(
                f'{k}="{v}"' in sample for k, v in labels.items()
            ):
                total += float(value)
        return total

    def tree(self) -> list[int]:
        """Process ids: the front's and its children's."""
        import psutil

        me = psutil.Process(self.process.pid)
        return [me.pid, *(child.pid for child in me.children(recursive=True))]

    def signal(self, number: signal.Signals) -> None:
        """To the front and its children, children first."""
        for pid in reversed(self.tree()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.show_stacks()
                self.kill()

    def show_stacks(self) -> None:
        """What the threads of the engine do, into the node's log, which then is printed."""
        for pid in self.tree()[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
        time.sleep(1)
        print(f"did not stop within 30 s:\n{self.log.read_text()[-6000:]}")


class Cluster:
    """A store, prefill and decode nodes and a router; `with` stops what was started."""

    def __init__(self, directory: Path, model: str, *node_flags: str) -> None:
        self.directory, self.model, self.node_flags = directory, model, node_flags
        self.started: list[Running] = []
        self.storage: list[str] = []
        self.router_port = free_port()
        self.secret = directory / "secret"
        self.secret.write_text(SECRET)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        for running in reversed(self.started):
            running.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.router_port}"

    def start(self, name: str, *command: str, port: int | None = None, **how: Any) -> Running:
        running = Running(self.directory / f"{name}.log", *command, port=port, **how)
        self.started.append(running)
        return running

    def share(self, backend: str, config: dict[str, Any]) -> None:
        """Nodes started from now on use this backend."""
        self.storage = [
            "--hicache-storage-backend",
            backend,
            "--hicache-storage-backend-extra-config",
            json.dumps(config),
        ]

    def file_cache(self) -> None:
        """Nodes started from now on share a directory."""
        self.share("file", {"root": str(self.directory / "l3")})

    def mooncake(self, port: int | None = None, segment_gib: str = "0.5") -> Running:
        """Start a master and a store; nodes started from now on use them."""
        port = port or free_port()
        self.share("mooncake", {"master_server_address": f"127.0.0.1:{port}"})
        return self.start(
            f"store{port}",
            "store",
            "--port",
            str(port),
            "--metrics-port",
            str(free_port()),
            "--segment-size",
            segment_gib,
            port=port,
        )

    def node(self, role: str, *flags: str, port: int | None = None, **how: Any) -> Running:
        port = port or free_port()
        return self.start(
            f"{role}{port}",
            role,
            "--model",
            self.model,
            "--port",
            str(port),
            "--router",
            self.url,
            "--node-secret-file",
            str(self.secret),
            "--admin-api-key",
            ADMIN,
            "--served-model-name",
            "m",
            *self.storage,
            *self.node_flags,
            *flags,
            port=port,
            **how,
        )

    def router(self, *flags: str) -> Running:
        return self.start(
            "router",
            "router",
            "--port",
            str(self.router_port),
            "--node-secret-file",
            str(self.secret),
            "--admin-api-key",
            ADMIN,
            *flags,
            port=self.router_port,
        )


@contextlib.contextmanager
def stopped(running: Running) -> Iterator[None]:
    """SIGSTOP all of a node's processes; SIGCONT at the end."""
    running.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        running.signal(signal.SIGCONT)


def drained(*decodes: Running) -> bool:
    """Whether nothing of these nodes waits to be stored."""
    loads = [decode.info()["node"]["load"] for decode in decodes]
    return all(load["offload_backlog_pages"] == 0 for load in loads)
