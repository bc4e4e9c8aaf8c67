"""One USRBIO ring with its piece of shared memory: many objects in flight, for one thread."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from kvloop.shared_cache.backends.directory.page_io import Transfer
from kvloop.shared_cache.backends.hf3fs.shared_block import SharedBlock
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import ALIGNMENT


@dataclass(frozen=True, slots=True, kw_only=True)
class RingSettings:
    """Of one ring."""

    mount: str
    """Where 3FS is mounted."""
    num_pieces: int
    """Objects in flight at most; the shared memory holds as many."""
    timeout_s: float
    """Longest time in which nothing completes."""
    numa_node: int | None = None
    """Where ring and memory lie; None: wherever."""


class RingLost(Exception):
    """Requests did not come back in time: they may still run, and the ring must go."""


class Ring:
    """Moves objects in one direction between files and the pool's slots.

    The bytes go through the ring's shared memory (one copy), so that a request that is still
    running when its caller has given up never touches a slot. After RingLost only `close` is left.
    """

    def __init__(self, usrbio: Any, settings: RingSettings, pool: HostPool, is_read: bool) -> None:
        """Raise OSError where 3FS or /dev/shm refuse."""
        self._settings = settings
        self._pool = pool
        self._is_read = is_read
        self._length = pool.shape.object_bytes
        numa = -1 if settings.numa_node is None else settings.numa_node
        self._block = SharedBlock(settings.num_pieces * self._length)
        try:
            self._iov = usrbio.make_iovec(self._block.memory, settings.mount, numa=numa)
            self._ring = usrbio.make_ioring(
                settings.mount, settings.num_pieces, for_read=is_read, numa=numa
            )
        except BaseException:
            self._iov = None
            self._block.hide()
            self._block.close()
            raise
        self._block.hide()  # the daemon has mapped it by now
        self._running: set[_Request] = set()

    def move(
        self, transfers: Sequence[Transfer], results: list[int], prepare_fd: Callable[[int], None]
    ) -> None:
        """Fill in the results, in order, as PageIO defines them.

        `prepare_fd` is called before a file's first request. Raises RingLost where nothing
        completed in time; the results that were known by then are filled in.
        """
        waiting = deque(range(len(transfers)))
        pieces = list(range(self._settings.num_pieces))
        while waiting or self._running:
            while waiting and pieces:
                index = waiting.popleft()
                request = _Request(index, transfers[index], pieces.pop())
                results[index] = self._start(request, prepare_fd)
                if request not in self._running:
                    pieces.append(request.piece)
            for request, result in self._completed():
                self._running.discard(request)
                results[request.index] = self._finish(request, result)
                if request not in self._running:
                    pieces.append(request.piece)

    def close(self) -> None:
        """Give ring and memory back; may hang where the mount does."""
        del self._ring, self._iov
        self._block.close()

    def _start(self, request: _Request, prepare_fd: Callable[[int], None]) -> int:
        """Queue a request; what its result would be if it never came."""
        try:
            prepare_fd(request.transfer.fd)
            if not self._is_read:
                np.copyto(self._piece(request), self._object(request.transfer))
            self._queue(request)
        except OSError as error:
            return -(error.errno or errno.EIO)
        return -errno.ETIMEDOUT

    def _queue(self, request: _Request) -> None:
        start = request.piece * self._length
        part = self._iov[start + request.done : start + self._length]
        # The request is its own userdata: the library counts references to that without the
        # interpreter's lock, so nothing that others use may be given to it.
        self._ring.prepare(part, self._is_read, request.transfer.fd, request.done, request)
        self._running.add(request)

    def _completed(self) -> list[tuple[_Request, int]]:
        """At least one, where any runs."""
        if not self._running:
            return []
        timeout = timedelta(seconds=self._settings.timeout_s)
        try:
            self._ring.submit()
            done = self._ring.wait(max_results=len(self._running), min_results=1, timeout=timeout)
        except OSError as error:
            raise RingLost(str(error)) from error
        if not done:
            raise RingLost(f"no I/O completed within {self._settings.timeout_s:g} s")
        return [(entry.userdata, entry.result) for entry in done]

    def _finish(self, request: _Request, result: int) -> int:
        """Its result; one that was written in part is queued again."""
        if self._is_read:
            if result == self._length:
                np.copyto(self._object(request.transfer), self._piece(request))
            return result
        if result < 0:
            return result
        done = request.done + result
        if done >= self._length:
            return self._length
        progress = done // ALIGNMENT * ALIGNMENT
        if progress == request.done:
            return -errno.EIO
        request.done = progress
        try:
            self._queue(request)
        except OSError as error:
            return -(error.errno or errno.EIO)
        return -errno.ETIMEDOUT

    def _piece(self, request: _Request) -> Any:
        start = request.piece * self._length
        return self._block.array[start : start + self._length]

    def _object(self, transfer: Transfer) -> Any:
        return np.frombuffer(self._pool.group_view(transfer.slot, transfer.group), np.uint8)


class _Request:
    """One transfer on its way."""

    __slots__ = ("done", "index", "piece", "transfer")

    def __init__(self, index: int, transfer: Transfer, piece: int) -> None:
        self.index = index
        self.transfer = transfer
        self.piece = piece
        self.done = 0
        """Bytes that an earlier request has written."""
