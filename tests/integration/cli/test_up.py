"""`kvloop up` as a command."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import fetch, free_port, wait_for

pytestmark = pytest.mark.integration


def up(*flags: str) -> list[str]:
    return [sys.executable, "-P", "-m", "kvloop.cli", "up", *flags]


def run(*flags: str, timeout_s: float = 180) -> subprocess.CompletedProcess[str]:
    return subprocess.run(up(*flags), capture_output=True, text=True, timeout=timeout_s)


def parts_of(state_dir: Path) -> list[int]:
    """Processes whose command line names this run's directory."""
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _names(entry / "cmdline", state_dir)
    ]


def _names(cmdline: Path, state_dir: Path) -> bool:
    try:
        return str(state_dir / "node-secret").encode() in cmdline.read_bytes()
    except OSError:
        return False


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_in_use_is_named_and_nothing_starts(taken_port: int, tmp_path: Path) -> None:
    done = run("--port", str(taken_port), "--state-dir", str(tmp_path / "s"))
    assert done.returncode == 2
    assert f"--port {taken_port} cannot be used" in done.stderr
    assert not (tmp_path / "s").exists()


def test_a_missing_model_fails_with_the_nodes_own_words(tmp_path: Path) -> None:
    flags = (
        "--model",
        str(tmp_path / "none"),
        "--shared-cache",
        "file",
        "--port",
        str(free_port()),
    )
    done = run(*flags, "--state-dir", str(tmp_path / "s"))
    assert done.returncode == 1
    assert str(tmp_path / "none") in done.stdout and "exited with status" in done.stdout
    assert not parts_of(tmp_path / "s")


def assert_reuse_was_shown(text: str) -> None:
    row = next(line for line in text.splitlines() if "decode: turn 1's answer" in line)
    _, expected, found, verdict = (cell.strip() for cell in row.strip(" │|").split("│"))
    assert int(found) >= int(expected) >= 4 and verdict == "ok"


def test_one_chat_shows_the_pages_that_decode_wrote_and_leaves_no_process(tmp_path: Path) -> None:
    done = run("--once", "--port", str(free_port()), "--state-dir", str(tmp_path))
    assert done.returncode == 0, done.stdout
    assert_reuse_was_shown(done.stdout)
    assert not parts_of(tmp_path)


def test_it_serves_until_sigterm_and_a_second_one_is_kept_out_of_its_directory(
    tmp_path: Path,
) -> None:
    port = free_port()
    flags = ("--shared-cache", "file", "--port", str(port), "--state-dir", str(tmp_path))
    with (tmp_path / "out").open("w") as out, subprocess.Popen(up(*flags), stdout=out) as running:
        try:
            wait_for("serving", lambda: "serving at" in (tmp_path / "out").read_text(), 180)
            assert_reuse_was_shown((tmp_path / "out").read_text())
            assert fetch(f"http://127.0.0.1:{port}/readyz")[0] == 200
            shared = fetch(f"http://127.0.0.1:{port}/server_info")[1]["history"]["shared"]
            assert shared["state"] == "attached", shared
            second = run("--port", str(free_port()), "--state-dir", str(tmp_path))
            assert second.returncode == 2 and "another kvloop up runs" in second.stderr
        finally:
            running.send_signal(signal.SIGTERM)
            assert running.wait(timeout=30) == 0
    assert not parts_of(tmp_path)
    assert not (tmp_path / "pages").exists()


def test_a_part_that_dies_while_serving_is_told_and_ends_the_run(tmp_path: Path) -> None:
    flags = ("--shared-cache", "file", "--port", str(free_port()), "--state-dir", str(tmp_path))
    with (tmp_path / "out").open("w") as out, subprocess.Popen(up(*flags), stdout=out) as running:
        try:
            wait_for("serving", lambda: "serving at" in (tmp_path / "out").read_text(), 180)
            victim = next(pid for pid in parts_of(tmp_path) if _is_role(pid, "router"))
            os.kill(victim, signal.SIGKILL)
            assert running.wait(timeout=30) == 1
        finally:
            running.terminate()
    assert "router was killed by signal 9" in (tmp_path / "out").read_text()
    assert not parts_of(tmp_path)


def _is_role(pid: int, role: str) -> bool:
    return role.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
