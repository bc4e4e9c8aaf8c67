"""The limit of backends on a file system: blocks of one large file, written and read in place."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from kvloop.benchmark.storage.arm import Arm
from kvloop.benchmark.storage.load import StorageLoad
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.workers import Workers

_NUM_THREADS = 8  # blocks in flight, as `fio --iodepth` would have


class RawFileArm(Arm):
    """Batches of blocks the size of page objects, in files that are allocated beforehand.

    No page is made, named or removed: a block goes where its key first put it.
    """

    def __init__(self, folder: Path, load: StorageLoad, pool: HostPool, is_direct: bool) -> None:
        """Raises OSError where the file system refuses."""
        self.name = "raw file, O_DIRECT" if is_direct else "raw file"
        self._pool = pool
        self._lock = threading.Lock()
        self._places: dict[bytes, int] = {}
        self._free: list[int] = []
        self._next = 0
        self._path = folder / f"kvloop-bench-raw-{os.getpid()}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | is_direct * os.O_DIRECT
        self._fd = os.open(self._path, flags, 0o600)
        self._threads = Workers(_NUM_THREADS, "raw-file")
        self._fill(2 * load.num_batches * load.pages_per_batch)

    def write(self, keys: Sequence[bytes], slots: Sequence[int]) -> int:
        places = [self._place(key) for key in keys]
        return self._moved(self._threads.map(self._write, slots, places))

    def read(self, keys: Sequence[bytes], slots: Sequence[int]) -> int:
        places = [self._places[key] for key in keys]
        return self._moved(self._threads.map(self._read, slots, places))

    def forget(self, keys: Sequence[bytes]) -> None:
        with self._lock:
            self._free += [self._places.pop(key) for key in keys if key in self._places]

    def close(self) -> None:
        self._threads.stop()
        os.close(self._fd)
        self._path.unlink()

    def _moved(self, sizes: Sequence[int]) -> int:
        return sum(size == self._pool.shape.object_bytes for size in sizes)

    def _write(self, slot: int, place: int) -> int:
        return os.pwritev(self._fd, [self._pool.view(slot)], place)

    def _read(self, slot: int, place: int) -> int:
        return os.preadv(self._fd, [self._pool.view(slot)], place)

    def _place(self, key: bytes) -> int:
        with self._lock:
            if self._free:
                return self._places.setdefault(key, self._free.pop())
            place = self._places.setdefault(key, self._next)
            self._next += self._pool.shape.object_bytes
            return place

    def _fill(self, num_blocks: int) -> None:
        """Written once: the file system allocates on the first write, not on a later one."""
        for block in range(num_blocks):
            self._write(0, block * self._pool.shape.object_bytes)
