"""Page bytes moved by a pool of threads, one call to the kernel for each object."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from concurrent.futures import wait

from kvloop.shared_cache.backends.directory.page_io import PageIO, Transfer
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.workers import Workers


class ThreadIO(PageIO):
    """preadv and pwritev on `num_threads` threads, straight from and to the pool's slots."""

    def __init__(
        self, pool: HostPool, *, num_threads: int, is_direct: bool, name: str = "l3-io"
    ) -> None:
        self.is_direct = is_direct
        self._pool = pool
        self._num_threads = num_threads
        self._workers = Workers(num_threads, name)

    def read(self, transfers: Sequence[Transfer]) -> list[int]:
        return self.spread(self._read, transfers)

    def write(self, transfers: Sequence[Transfer]) -> list[int]:
        return self.spread(self._write, transfers)

    def forget(self, fd: int) -> None:
        pass

    def close(self) -> None:
        self._workers.stop()

    def spread(self, work: Callable[[Transfer], int], transfers: Sequence[Transfer]) -> list[int]:
        """Do the work for each transfer; each thread takes the next that none has taken yet."""
        results = [0] * len(transfers)
        rest = iter(range(len(transfers)))  # taking from it is atomic

        def take() -> None:
            for i in rest:
                results[i] = work(transfers[i])

        num_tasks = min(self._num_threads, len(transfers))
        tasks = [self._workers.submit(take) for _ in range(num_tasks)]
        wait(tasks)
        for task in tasks:
            task.result()
        return results

    def _read(self, transfer: Transfer) -> int:
        view = self._pool.group_view(transfer.slot, transfer.group)
        done = 0
        try:
            while done < view.nbytes:
                num_bytes = os.preadv(transfer.fd, [view[done:]], done)
                if num_bytes == 0:
                    break
                done += num_bytes
        except OSError as error:
            return -(error.errno or errno.EIO)
        return done

    def _write(self, transfer: Transfer) -> int:
        view = self._pool.group_view(transfer.slot, transfer.group)
        done = 0
        try:
            while done < view.nbytes:
                done += os.pwritev(transfer.fd, [view[done:]], done)
        except OSError as error:
            return -(error.errno or errno.EIO)
        return done
