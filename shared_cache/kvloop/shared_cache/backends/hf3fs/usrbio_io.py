"""USRBIO: batches of objects through rings in memory that is shared with 3FS's daemon."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from queue import Empty, LifoQueue
from typing import Any

from kvloop.shared_cache.backends.directory.faults import Counts
from kvloop.shared_cache.backends.directory.page_io import PageIO, Transfer
from kvloop.shared_cache.backends.hf3fs.ring import Ring, RingLost, RingSettings
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.workers import Workers


class UsrbioIO(PageIO):
    """Up to `num_rings` rings for reading and as many for writing, opened as they are needed.

    A batch that is larger than a ring is spread over several. Where nothing of a ring completes in
    time, its transfers fail with ETIMEDOUT, it is given up, and the next batch gets a new one.
    """

    is_direct = True  # the rings do not care, but nobody else shall cache these files

    def __init__(self, usrbio: Any, settings: RingSettings, num_rings: int, pool: HostPool) -> None:
        """Raise OSError where the mount or /dev/shm refuse."""
        self._usrbio = usrbio
        self._settings = settings
        self._num_rings = num_rings
        self._pool = pool
        self._counts = Counts("staged_bytes", "rings_opened", "rings_lost", "ring_waits")
        self._registering = threading.Lock()  # held while the mount is asked
        self._registered: set[int] = set()
        self._rings = {True: _idle(num_rings), False: _idle(num_rings)}
        self._threads = Workers(num_rings, "l3-hf3fs")
        try:
            for is_read, idle in self._rings.items():
                idle.put(self._take_ring(is_read))
        except BaseException:
            self.close()
            raise

    def read(self, transfers: Sequence[Transfer]) -> list[int]:
        return self._move(transfers, is_read=True)

    def write(self, transfers: Sequence[Transfer]) -> list[int]:
        return self._move(transfers, is_read=False)

    def forget(self, fd: int) -> None:
        with self._registering:
            if fd in self._registered:
                self._registered.discard(fd)
                self._usrbio.deregister_fd(fd)

    def stats(self) -> dict[str, float]:
        """Counters since the start."""
        return self._counts.snapshot()

    def close(self) -> None:
        self._threads.stop()
        for idle in self._rings.values():
            while not idle.empty():
                ring = idle.get()
                if ring is not None:
                    _close(ring)

    def _move(self, transfers: Sequence[Transfer], is_read: bool) -> list[int]:
        if not transfers:
            return []
        shares = self._shares(transfers)
        if len(shares) == 1:
            return self._move_share(transfers, is_read)
        done = self._threads.map(self._move_share, shares, [is_read] * len(shares))
        return [result for results in done for result in results]

    def _shares(self, transfers: Sequence[Transfer]) -> list[Sequence[Transfer]]:
        """Cut a batch for several rings, none of which would get less than it can take at once."""
        num_shares = max(1, min(self._num_rings, len(transfers) // self._settings.num_pieces))
        size = -(-len(transfers) // num_shares)
        return [transfers[i : i + size] for i in range(0, len(transfers), size)]

    def _move_share(self, transfers: Sequence[Transfer], is_read: bool) -> list[int]:
        results = [-errno.ETIMEDOUT] * len(transfers)
        try:
            ring = self._take_ring(is_read)
        except Empty:
            self._counts.add("ring_waits")
            return results
        except OSError as error:
            return [-(error.errno or errno.EIO)] * len(transfers)
        try:
            ring.move(transfers, results, self._register)
        except BaseException as error:
            self._rings[is_read].put(None)
            self._give_up(ring)
            if not isinstance(error, RingLost):
                raise
        else:
            self._rings[is_read].put(ring)
        num_whole = sum(result == self._pool.shape.object_bytes for result in results)
        self._counts.add("staged_bytes", num_whole * self._pool.shape.object_bytes)
        return results

    def _take_ring(self, is_read: bool) -> Ring:
        """An idle ring, or a new one; raises Empty where all are busy for too long."""
        idle = self._rings[is_read]
        ring = idle.get(timeout=self._settings.timeout_s)
        if ring is not None:
            return ring
        try:
            ring = Ring(self._usrbio, self._settings, self._pool, is_read)
        except BaseException:
            idle.put(None)
            raise
        self._counts.add("rings_opened")
        return ring

    def _give_up(self, ring: Ring) -> None:
        """Let go of a ring on a thread of its own: the mount may hang."""
        self._counts.add("rings_lost")
        threading.Thread(target=_close, args=(ring,), name="l3-hf3fs-lost", daemon=True).start()

    def _register(self, fd: int) -> None:
        with self._registering:
            if fd in self._registered:
                return
            try:
                self._usrbio.register_fd(fd)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # While its mount was dead, another file of this number could not be deregistered.
                self._usrbio.deregister_fd(fd)
                self._usrbio.register_fd(fd)
            self._registered.add(fd)


def _idle(num_rings: int) -> LifoQueue[Ring | None]:
    """Places for rings; None is one that is not open. The ring that was used last comes first."""
    places: LifoQueue[Ring | None] = LifoQueue()
    for _ in range(num_rings):
        places.put(None)
    return places


def _close(ring: Ring) -> None:
    ring.close()
