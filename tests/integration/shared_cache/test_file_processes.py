"""Several processes on one root: one bound, one order of use, and crashes that cost no more."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kvloop.shared_cache.backends.directory.index import Index
from kvloop.shared_cache.backends.file.backend import FileBackend, FileConfig
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape

pytestmark = pytest.mark.integration

SHAPE = PageShape(num_layers=1, page_size=16, num_kv_heads=1, head_size=32, itemsize=2)
NAMESPACE = b"n" * 32
PAGE = SHAPE.object_bytes
NUM_SLOTS = 16

# Does what it is told, one line after the other: {"set": [numbers]} or {"get": [numbers]}.
_WORKER = f"""
import json, sys
from kvloop.shared_cache.backends.file.backend import FileBackend, FileConfig
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
shape = PageShape(num_layers=1, page_size=16, num_kv_heads=1, head_size=32, itemsize=2)
pool = HostPool(shape, {NUM_SLOTS})
pool.alloc({NUM_SLOTS})
config = FileConfig(root=sys.argv[1], capacity_bytes=int(sys.argv[2]))
backend = FileBackend(config, pool, b"n" * 32)
print("ready", flush=True)
for line in sys.stdin:
    [(call, numbers)] = json.loads(line).items()
    keys = [n.to_bytes(32, "little") for n in numbers]
    print(json.dumps(getattr(backend, call)(keys, range(len(keys)))), flush=True)
backend.close()
"""


class Worker:
    """Another process with a store on the same root."""

    def __init__(self, root: Path, num_pages: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(root), str(num_pages * PAGE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def begin(self, call: str, numbers: Sequence[int]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({call: list(numbers)}) + "\n")
        self.process.stdin.flush()

    def end(self) -> Any:
        return json.loads(self._line())

    def run(self, call: str, *numbers: int) -> Any:
        self.begin(call, numbers)
        return self.end()

    def close(self) -> None:
        """Ends by itself once it is told nothing more."""
        if self.process.poll() is None:
            self.process.communicate(timeout=20)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=20)

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "l3"


@pytest.fixture
def workers(root: Path) -> Iterator[list[Worker]]:
    workers = [Worker(root, 16) for _ in range(2)]
    yield workers
    for worker in workers:
        worker.close()


def numbers_held(root: Path) -> set[int]:
    keys = (path.name.split("-")[2] for path in root.rglob("kvl1-*"))
    return {int.from_bytes(bytes.fromhex(key), "little") for key in keys}


def sum_in_index(root: Path) -> int:
    index = Index(root / "kvl1" / "index.sqlite3", is_made=False)
    total = index.total()
    index.close()
    return total


def test_two_writers_at_once_never_pass_the_bound_together(
    root: Path, workers: list[Worker]
) -> None:
    for start in range(0, 400, 8):
        for i, worker in enumerate(workers):
            worker.begin("set", range(10_000 * i + start, 10_000 * i + start + 8))
        for worker in workers:
            assert any(worker.end())
        assert len(numbers_held(root)) <= 16
    for worker in workers:
        worker.close()
    assert sum_in_index(root) == len(numbers_held(root)) * PAGE


def test_what_one_process_reads_another_does_not_evict(root: Path, workers: list[Worker]) -> None:
    one, other = workers
    one.run("set", *range(16))
    one.close()  # what it has used is written down now, and within a second else
    other.run("get", 0, 1)
    other.close()
    third = Worker(root, 16)
    third.run("set", *range(100, 114))
    third.close()
    assert numbers_held(root) == {0, 1, *range(100, 114)}


@pytest.mark.parametrize("round_", range(3))
def test_a_writer_that_is_killed_leaves_a_sum_that_is_right_or_heals(
    root: Path, round_: int
) -> None:
    victim = Worker(root, 16)
    victim.begin("set", range(round_ * 5, round_ * 5 + 12))
    victim.kill()
    held = numbers_held(root)
    pool = HostPool(SHAPE, NUM_SLOTS)
    pool.alloc(NUM_SLOTS)
    store = FileBackend(FileConfig(root=str(root), capacity_bytes=16 * PAGE), pool, NAMESPACE)
    keys = [n.to_bytes(32, "little") for n in sorted(held)]
    assert store.get(keys, range(len(keys))) == [True] * len(keys), "whole pages or none"
    for number in range(200, 240):
        store.set([number.to_bytes(32, "little")], [0])
        assert len(numbers_held(root)) <= 16
    assert 239 in numbers_held(root)
    store.close()
