"""`kvloop store` as a pod: it says whether it serves, and waits for a master that starts later."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mooncake_store import MooncakeStore, running
from running import fetch, free_port, wait_for

pytestmark = pytest.mark.integration


@contextmanager
def store(log: Path, *flags: str) -> Iterator[subprocess.Popen[bytes]]:
    """Not waited for; killed in the end."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "kvloop.cli", "store", *flags],
            stdout=sink,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_store_is_alive_at_once_and_ready_when_its_master_has_come(tmp_path: Path) -> None:
    port, health = free_port(), free_port()
    url = f"http://127.0.0.1:{health}"
    joining = ("--master", f"127.0.0.1:{port}", "--join-s", "120", "--segment-size", "0.0625")
    masters = ("--port", str(port), "--metrics-port", str(free_port()), "--segment-size", "0")
    with store(tmp_path / "store.log", *joining, "--health-port", str(health)):
        wait_for("life", lambda: fetch(f"{url}/healthz")[0] == 200, 90)
        assert fetch(f"{url}/readyz")[0] == 503
        with store(tmp_path / "master.log", *masters):
            wait_for("the store", lambda: fetch(f"{url}/readyz")[0] == 200, 90)
    assert fetch(f"{url}/readyz")[0] == 0


def test_without_waiting_a_store_ends_where_no_master_is(tmp_path: Path) -> None:
    flags = ("--master", f"127.0.0.1:{free_port()}", "--segment-size", "0.0625")
    with store(tmp_path / "store.log", *flags) as process:
        assert process.wait(90) == 1


def test_a_health_port_says_no_more_than_health(tmp_path: Path) -> None:
    health = free_port()
    flags = ("--health-port", str(health))
    with running(MooncakeStore(tmp_path / "store.log", 64 << 20, False, *flags)):
        assert fetch(f"http://127.0.0.1:{health}/readyz")[0] == 200
        assert fetch(f"http://127.0.0.1:{health}/metrics")[0] == 404


def test_a_lease_needs_a_pod(tmp_path: Path) -> None:
    flags = ("--segment-size", "0", "--lease", "ns/m", "--identity", "m-0")
    log = tmp_path / "store.log"
    with store(log, *flags) as process:
        assert process.wait(90) == 2
    assert "--lease works in a pod only" in log.read_text()
