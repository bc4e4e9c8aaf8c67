"""What backend nixl with plugin UCX costs a node while no page moves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from nixl_memory import MemoryServer
from nixl_pages import Pages

pytestmark = pytest.mark.integration
pytest.importorskip("nixl_cu12", reason="install nixl-cu12")
SLEEP_S = 2.0
TICKS_A_S = 100


def ticks_of_threads() -> dict[str, int]:
    """CPU time of each thread of this process."""
    tasks = Path("/proc/self/task").iterdir()
    fields = {task.name: (task / "stat").read_text().rpartition(")")[2].split() for task in tasks}
    return {name: int(each[11]) + int(each[12]) for name, each in fields.items()}


def test_a_node_that_moves_nothing_leaves_the_cores_to_others(tmp_path: Path) -> None:
    server, pages = MemoryServer(tmp_path / "server.log"), Pages()
    before = ticks_of_threads()
    backend = pages.open({"plugin": "UCX", "server": server.address})
    try:
        assert backend.set(pages.keys(8), pages.filled(8)) == [True] * 8
        begun = ticks_of_threads()
        time.sleep(SLEEP_S)
        ended = ticks_of_threads()
    finally:
        backend.close()
        server.stop()
    opened = begun.keys() & ended.keys() - before.keys()
    assert sum(ended[task] - begun[task] for task in opened) < SLEEP_S * TICKS_A_S / 20
