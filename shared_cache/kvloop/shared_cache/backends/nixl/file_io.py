"""Pages between the host pool and open files by a NIXL file plugin: POSIX, GDS, GDS_MT or HF3FS."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from kvloop.shared_cache.backends.directory.page_io import PageIO, Transfer
from kvloop.shared_cache.backends.nixl.agent import Operation, Place, PoolAgent, TransferFailed
from kvloop.shared_cache.host_pool import HostPool

_PlainCall = Callable[[int, Sequence[memoryview], int], int]


class NixlIO(PageIO):
    """One request a batch. Where that fails NIXL cannot say which object did, nor why: each object
    is then moved again by the kernel's plain call, whose answer counts (`plain_objects`)."""

    def __init__(self, agent: PoolAgent, pool: HostPool, *, is_direct: bool) -> None:
        """Takes the agent over: `close` closes it."""
        self.is_direct = is_direct
        self.num_plain = 0
        self._agent = agent
        self._pool = pool
        self._size = pool.shape.object_bytes
        self._lock = threading.Lock()
        self._files: dict[int, Any] = {}

    def read(self, transfers: Sequence[Transfer]) -> list[int]:
        return self._move("READ", os.preadv, transfers)

    def write(self, transfers: Sequence[Transfer]) -> list[int]:
        lengths = self._move("WRITE", os.pwritev, transfers)
        # The kernel writes a part where the room, or a limit, ends.
        return [-errno.ENOSPC if 0 <= n < self._size else n for n in lengths]

    def forget(self, fd: int) -> None:
        with self._lock:
            registered = self._files.pop(fd, None)
            if registered is not None:
                self._agent.deregister(registered)

    def close(self) -> None:
        for fd in list(self._files):
            self.forget(fd)
        self._agent.close()

    @property
    def num_overdue(self) -> int:
        """Transfers that took longer than the configuration's `overdue_s`."""
        return self._agent.num_overdue

    def _move(
        self, operation: Operation, plain: _PlainCall, transfers: Sequence[Transfer]
    ) -> list[int]:
        if not transfers:
            return []
        try:
            self._register(transfers)
            local = [Place(self._pool.address(t.slot, t.group), self._size) for t in transfers]
            remote = [Place(0, self._size, t.fd) for t in transfers]
            self._agent.transfer(operation, local, remote, "FILE")
        except TransferFailed:
            with self._lock:
                self.num_plain += len(transfers)
            return [self._move_plainly(plain, transfer) for transfer in transfers]
        return [self._size] * len(transfers)

    def _register(self, transfers: Sequence[Transfer]) -> None:
        with self._lock:
            for fd in {transfer.fd for transfer in transfers} - self._files.keys():
                try:
                    place = Place(0, self._size, fd)
                    self._files[fd] = self._agent.register([place], [""], "FILE")
                except Exception as error:
                    raise TransferFailed(f"registering a file: {error}") from error

    def _move_plainly(self, plain: _PlainCall, transfer: Transfer) -> int:
        try:
            return plain(transfer.fd, [self._pool.group_view(transfer.slot, transfer.group)], 0)
        except OSError as error:
            return -(error.errno or errno.EIO)
