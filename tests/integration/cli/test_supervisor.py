"""The supervisor with real, trivial child processes."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from running import wait_for

from kvloop.cli.up.child import Child
from kvloop.cli.up.plan import Part
from kvloop.cli.up.supervisor import PartFailed, Supervisor

pytestmark = pytest.mark.integration

READY = "import time; print('now ready'); time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('now ready'); time.sleep(60)"
)
PARENT = (
    "import subprocess, sys, time; "
    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    "print('child', p.pid); print('now ready'); time.sleep(60)"
)


def part(name: str, code: str, *, starts_first: bool = False) -> Part:
    return Part(
        name=name,
        argv=(sys.executable, "-c", code),
        ready_line="now ready",
        starts_first=starts_first,
    )


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def start(supervisor: Supervisor, *parts: Part, deadline_s: float = 30.0) -> dict[str, Child]:
    seen: dict[str, Child] = {}

    def report(reported: Part, child: Child, is_ready: bool) -> None:
        seen[reported.name] = child

    await supervisor.start(parts, deadline_s, report)
    return seen


async def test_all_parts_run_when_start_returns_and_none_after_stop(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    children = await start(supervisor, part("a", READY), part("b", READY))
    pids = [child.pid for child in children.values()]
    assert len(pids) == 2 and all(map(is_alive, pids))
    await supervisor.stop()
    assert not any(map(is_alive, pids))


async def test_the_first_parts_are_ready_before_the_others_start(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    late = f"import pathlib; print(pathlib.Path({str(tmp_path / 'store.log')!r}).read_text()); "
    try:
        await start(supervisor, part("node", late + READY), part("store", READY, starts_first=True))
        assert "now ready" in (tmp_path / "node.log").read_text().splitlines()[0]
    finally:
        await supervisor.stop()


async def test_a_part_that_dies_at_its_start_is_shown_with_the_end_of_its_log(
    tmp_path: Path,
) -> None:
    supervisor = Supervisor(tmp_path)
    try:
        with pytest.raises(PartFailed, match=r"bad exited with status 3(.|\n)*no such model"):
            await start(supervisor, part("bad", "print('no such model'); raise SystemExit(3)"))
    finally:
        await supervisor.stop()


async def test_a_part_that_is_never_ready_fails_at_the_deadline(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    try:
        with pytest.raises(PartFailed, match="not ready in time: slow"):
            await start(supervisor, part("slow", "import time; time.sleep(60)"), deadline_s=0.5)
    finally:
        await supervisor.stop()


async def test_a_part_that_dies_later_ends_the_watch(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    try:
        children = await start(supervisor, part("a", READY), part("b", READY))
        os.kill(children["b"].pid, signal.SIGKILL)
        with pytest.raises(PartFailed, match="b was killed by signal 9"):
            await asyncio.wait_for(supervisor.watch(), 10)
    finally:
        await supervisor.stop()


async def test_a_part_that_ignores_sigterm_is_killed_at_the_deadline(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    children = await start(supervisor, part("stubborn", STUBBORN))
    await supervisor.stop(deadline_s=0.3)
    assert not is_alive(children["stubborn"].pid)


async def test_what_others_store_in_ends_only_when_they_have_ended(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    store = (await start(supervisor, part("store", READY, starts_first=True)))["store"]
    last_words = (
        "import os, signal, sys, time; from pathlib import Path; "
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), "
        f"Path({str(tmp_path / 'state')!r}).write_text("
        f"Path('/proc/{store.pid}/stat').read_text()), sys.exit())); "
        "print('now ready', flush=True); time.sleep(60)"
    )
    await start(supervisor, part("node", last_words))
    await supervisor.stop()
    assert (tmp_path / "state").read_text().rpartition(")")[2].split()[0] == "S"
    assert not is_alive(store.pid)


async def test_what_a_part_started_itself_ends_with_it(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    children = await start(supervisor, part("parent", PARENT))
    grandchild = int(children["parent"].last_lines(2)[0].split()[1])
    assert is_alive(grandchild)
    await supervisor.stop()
    wait_for("the grandchild's end", lambda: not is_alive(grandchild), 5)


def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from kvloop.cli.up.child import Child; "
        "sleep = [sys.executable, '-c', 'import time; time.sleep(60)']; "
        "print(Child('c', sleep, Path(sys.argv[1])).pid, flush=True); time.sleep(60)"
    )
    argv = [sys.executable, "-c", code, str(tmp_path / "log")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    wait_for("the child's end", lambda: not is_alive(pid), 10)
