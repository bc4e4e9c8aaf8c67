"""The limits of backends on a file system: blocks of one large file."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from kvloop.benchmark.storage.arm import Arm
from kvloop.benchmark.storage.load import StorageLoad
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.workers import Workers

_NUM_THREADS = 8  # blocks in flight, as `fio --numjobs` would have


class RawFileArm(Arm):
    """Batches of blocks the size of page objects; no page is named or removed.

    New blocks are allocated before each round and written once, as page files are, and as `fio`
    does. Rewritten ones, where `is_rewritten`, exist on the medium already: file systems write
    those faster, and a store of new pages cannot.
    """

    def __init__(
        self,
        folder: Path,
        load: StorageLoad,
        pool: HostPool,
        *,
        is_direct: bool,
        is_rewritten: bool = False,
    ) -> None:
        """Raises OSError where the file system refuses, and leaves nothing there then."""
        self.name = "raw file" + ", rewritten" * is_rewritten + ", O_DIRECT" * is_direct
        self._pool = pool
        self._is_rewritten = is_rewritten
        self._num_blocks = 2 * load.num_batches * load.pages_per_batch
        self._lock = threading.Lock()
        self._places: dict[bytes, int] = {}
        self._path = folder / f"kvloop-bench-raw-{os.getpid()}-{int(is_rewritten)}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | is_direct * os.O_DIRECT
        self._fd = os.open(self._path, flags, 0o600)
        self._threads = Workers(_NUM_THREADS, "raw-file")
        try:
            self._allocate()
            if is_rewritten:
                self._fill()
        except BaseException:
            self.close()
            raise

    def prepare(self) -> None:
        self._places.clear()
        if not self._is_rewritten:
            os.ftruncate(self._fd, 0)
            self._allocate()

    def write(self, keys: Sequence[bytes], slots: Sequence[int]) -> int:
        places = [self._place(key) for key in keys]
        return self._moved(self._threads.map(self._write, slots, places))

    def read(self, keys: Sequence[bytes], slots: Sequence[int]) -> int:
        places = [self._places[key] for key in keys]
        return self._moved(self._threads.map(self._read, slots, places))

    def forget(self, keys: Sequence[bytes]) -> None:
        pass

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
            return self._places.setdefault(key, len(self._places) * self._pool.shape.object_bytes)

    def _allocate(self) -> None:
        os.posix_fallocate(self._fd, 0, self._num_blocks * self._pool.shape.object_bytes)

    def _fill(self) -> None:
        for block in range(self._num_blocks):
            self._write(0, block * self._pool.shape.object_bytes)
