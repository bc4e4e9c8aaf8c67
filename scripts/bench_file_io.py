#!/usr/bin/env python3
"""How page files are moved fastest: by threads, by io_uring, or as the `file` backend does it.

    python scripts/bench_file_io.py [--root DIR] [--sizes 65536,1048576,4194304] [--batches 32,128]

Beside it, the limit in the same run: blocks of one file that is allocated before, by as many
threads. io_uring needs `pip install pyuring` (0.3.0 was measured) and is left out without it. Each
number is the median of some rounds, each with the arms in another order, in GB/s.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import secrets
import statistics
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from kvloop.shared_cache.backends.directory.page_io import PageIO, Transfer
from kvloop.shared_cache.backends.directory.thread_io import ThreadIO
from kvloop.shared_cache.backends.file.backend import FileBackend, FileConfig
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape

DEPTH = 64  # of a ring
MAX_FILES = 512  # of one measurement
NAMESPACE = b"b" * 32


class Arm(ABC):
    """One way to write a batch of objects, and to read it again."""

    name: str

    @abstractmethod
    def write(self, slots: Sequence[int]) -> None: ...

    @abstractmethod
    def read(self, slots: Sequence[int]) -> None: ...

    @abstractmethod
    def clear(self) -> None: ...

    def close(self) -> None:
        self.clear()


class RawArm(Arm):
    """The limit: one file, allocated before; no name, no look-up."""

    def __init__(self, root: Path, pool: HostPool, io: ThreadIO, threads: int) -> None:
        self.name = f"raw file, {threads} threads"
        self._io, self._pool = _OneFile(pool, io), pool
        self._path = root / "raw"
        self._fd = -1
        self._begin()

    def write(self, slots: Sequence[int]) -> None:
        check(self._pool, self._io.move(os.pwritev, self._fd, slots))

    def read(self, slots: Sequence[int]) -> None:
        check(self._pool, self._io.move(os.preadv, self._fd, slots))

    def clear(self) -> None:
        os.ftruncate(self._fd, 0)
        self._allocate()

    def close(self) -> None:
        os.close(self._fd)
        self._path.unlink()
        self._io.io.close()

    def _begin(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | self._io.io.is_direct * os.O_DIRECT
        self._fd = os.open(self._path, flags, 0o600)
        self._allocate()

    def _allocate(self) -> None:
        os.posix_fallocate(self._fd, 0, self._pool.num_slots * self._pool.shape.object_bytes)


class _OneFile:
    """Runs a threaded mover's threads over blocks of one file."""

    def __init__(self, pool: HostPool, io: ThreadIO) -> None:
        self.io = io
        self._pool = pool

    def move(self, call: Any, fd: int, slots: Sequence[int]) -> list[int]:
        size = self._pool.shape.object_bytes

        def one(transfer: Transfer) -> int:
            view = self._pool.group_view(transfer.slot, 0)
            done: int = call(fd, [view], transfer.slot * size)
            return done

        return self.io.spread(one, [Transfer(fd, slot, 0) for slot in slots])


class FilesArm(Arm):
    """A file for each object, opened and made in the call: what any mover of bytes is given."""

    def __init__(self, root: Path, pool: HostPool, io: PageIO, name: str) -> None:
        self.name, self._root, self._pool, self._io = name, root, pool, io
        self._direct = io.is_direct * os.O_DIRECT

    def write(self, slots: Sequence[int]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | self._direct
        self._move(self._io.write, slots, flags)

    def read(self, slots: Sequence[int]) -> None:
        self._move(self._io.read, slots, os.O_RDONLY | self._direct)

    def clear(self) -> None:
        for path in self._root.glob("page-*"):
            path.unlink()

    def close(self) -> None:
        self.clear()
        self._io.close()

    def _move(self, move: Any, slots: Sequence[int], flags: int) -> None:
        fds = [os.open(self._root / f"page-{slot}", flags, 0o600) for slot in slots]
        check(self._pool, move([Transfer(fd, s, 0) for fd, s in zip(fds, slots, strict=True)]))
        for fd in fds:
            os.close(fd)


class BackendArm(Arm):
    """The backend itself: found, made, written, linked, and read."""

    def __init__(self, pool: HostPool, config: FileConfig, name: str) -> None:
        self.name = name
        self._backend = FileBackend(config, pool, NAMESPACE)
        self._keys = [secrets.token_bytes(32) for _ in range(pool.num_slots)]

    def write(self, slots: Sequence[int]) -> None:
        assert all(self._backend.set([self._keys[slot] for slot in slots], slots))

    def read(self, slots: Sequence[int]) -> None:
        assert all(self._backend.get([self._keys[slot] for slot in slots], slots))

    def clear(self) -> None:
        self._backend.clear()

    def close(self) -> None:
        self.clear()
        self._backend.close()


class UringIO(PageIO):
    """A ring for each call; at most DEPTH objects in flight."""

    def __init__(self, pool: HostPool, pyuring: Any, is_direct: bool) -> None:
        self.is_direct = is_direct
        self._pool = pool
        self._ring = pyuring.UringCtx(entries=DEPTH, single_thread_check=False)

    def read(self, transfers: Sequence[Transfer]) -> list[int]:
        return self._run(self._ring.read_async_ptr, transfers)

    def write(self, transfers: Sequence[Transfer]) -> list[int]:
        return self._run(self._ring.write_async_ptr, transfers)

    def _run(self, queue: Any, transfers: Sequence[Transfer]) -> list[int]:
        results, size = [0] * len(transfers), self._pool.shape.object_bytes
        num_queued = num_done = 0
        while num_done < len(transfers):
            while num_queued < min(len(transfers), num_done + DEPTH):
                fd, slot, group = transfers[num_queued]
                queue(fd, self._pool.address(slot, group), size, 0, num_queued)
                num_queued += 1
            self._ring.submit()
            done = self._ring.wait_completion()
            while done is not None:
                results[done[0]] = done[1]
                num_done += 1
                done = self._ring.peek_completion()
        return results

    def forget(self, fd: int) -> None:
        pass

    def close(self) -> None:
        self._ring.close()


def check(pool: HostPool, lengths: Sequence[int]) -> None:
    assert set(lengths) == {pool.shape.object_bytes}, lengths


def arms_of(root: Path, pool: HostPool, is_direct: bool, threads: Sequence[int]) -> list[Arm]:
    def mover(num_threads: int) -> ThreadIO:
        return ThreadIO(pool, num_threads=num_threads, is_direct=is_direct)

    arms: list[Arm] = [RawArm(root, pool, mover(8), 8)]
    for num_threads in threads:
        folder = Path(tempfile.mkdtemp(dir=root))
        arms.append(FilesArm(folder, pool, mover(num_threads), f"files, {num_threads} threads"))
    try:
        pyuring: Any = importlib.import_module("pyuring")
    except ImportError:
        print("(io_uring is left out: pyuring is not installed)", file=sys.stderr)
    else:
        folder = Path(tempfile.mkdtemp(dir=root))
        arms.append(FilesArm(folder, pool, UringIO(pool, pyuring, is_direct), "files, io_uring"))
    direct: Literal["on", "off"] = "on" if is_direct else "off"
    for name, capacity in (("backend", None), ("backend, bounded", 1 << 40)):
        home = Path(tempfile.mkdtemp(dir=root))
        config = FileConfig(root=str(home), direct=direct, capacity_bytes=capacity)
        arms.append(BackendArm(pool, config, name))
    return arms


def measure(arm: Arm, pool: HostPool, batch: int) -> tuple[float, float]:
    """GB/s of writing all slots anew, and of reading them."""
    batches = [range(i, min(i + batch, pool.num_slots)) for i in range(0, pool.num_slots, batch)]
    rates = []
    for step in (arm.write, arm.read):
        began_at = time.perf_counter()
        for slots in batches:
            step(slots)
        seconds = time.perf_counter() - began_at
        rates.append(pool.num_slots * pool.shape.object_bytes / seconds / 1e9)
    return rates[0], rates[1]


def settle(root: Path) -> None:
    """What the arm before has removed is gone, and its blocks are free."""
    fd = os.open(root, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    time.sleep(0.2)


def shape_of(size: int) -> PageShape:
    """An object of `size` bytes: the trailer and its padding are the last 4 KiB."""
    return PageShape(num_layers=1, page_size=(size - 4096) // 128, num_kv_heads=1, head_size=32,
                     itemsize=2)  # fmt: skip


def run(root: Path, size: int, batch: int, is_direct: bool, options: argparse.Namespace) -> None:
    num_slots = max(batch, min(options.total_mib * (1 << 20) // size, MAX_FILES))
    pool = HostPool(shape_of(size), num_slots)
    pool.array[:] = 7
    assert pool.shape.object_bytes == size, pool.shape.object_bytes
    arms = arms_of(root, pool, is_direct, options.threads)
    rates: dict[str, list[tuple[float, float]]] = {arm.name: [] for arm in arms}
    order = random.Random(size + batch)
    for _ in range(options.rounds):
        for arm in order.sample(arms, len(arms)):
            settle(root)
            rates[arm.name].append(measure(arm, pool, batch))
            arm.clear()
    limit = [statistics.median(rate[i] for rate in rates[arms[0].name]) for i in (0, 1)]
    mode = "O_DIRECT" if is_direct else "buffered"
    print(f"\n{size >> 10} KiB, batches of {batch}, {mode}")
    for arm in arms:
        write, read = (statistics.median(rate[i] for rate in rates[arm.name]) for i in (0, 1))
        shares = f"{write / limit[0]:5.0%} {read / limit[1]:5.0%}"
        print(f"  {arm.name:22} write {write:6.2f}  read {read:6.2f} GB/s   of raw {shares}")
        arm.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="directory to write under (default: a new one)")
    parser.add_argument("--sizes", type=_numbers, default=[65536, 1 << 20, 4 << 20])
    parser.add_argument("--batches", type=_numbers, default=[32, 128])
    parser.add_argument("--threads", type=_numbers, default=[1, 2, 4, 8])
    parser.add_argument("--total-mib", type=int, default=256, help="moved by each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for size in options.sizes:
        for batch in options.batches:
            for is_direct in (True, False):
                with tempfile.TemporaryDirectory(dir=options.root) as root:
                    run(Path(root), size, batch, is_direct, options)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
