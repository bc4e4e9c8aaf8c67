"""Host slots that pages pass through on their way to L3, and the copies into them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from kvloop.decode.offload.chain import Page
from kvloop.engine.page_mover import Move, PageMover
from kvloop.shared_cache.errors import TransferError
from kvloop.shared_cache.slot_owners import SlotOwners
from kvloop.shared_cache.workers import Workers

log = logging.getLogger("kvloop.decode")
_DEADLINE_S = 60.0


class Backup(Protocol):
    """What staging needs of a mover."""

    def backup(self, pages: Sequence[int], slots: Sequence[int]) -> Move:
        """Begin to copy device pages into host slots."""


class Copied(NamedTuple):
    """Pages whose copy has ended."""

    pages: list[Page]
    num_bytes: int
    seconds: float
    is_whole: bool
    """False: the copy failed, and the pages have no slots any more."""


class Staging:
    """At most `limit` slots are in use at once; the loop thread's, and it never waits.

    From `begin` until `landed` returns it, a page's device page and slot must stay as they are.
    """

    def __init__(self, slots: SlotOwners, backup: Backup, limit: int) -> None:
        assert 0 < limit <= slots.num_slots, (limit, slots.num_slots)
        self._slots, self._backup, self._limit = slots, backup, limit
        self._num_used = 0
        self._copies: list[tuple[Move, list[Page]]] = []

    @property
    def num_free(self) -> int:
        """Pages that could begin now."""
        return min(self._limit - self._num_used, self._slots.num_free)

    def begin(self, pages: Sequence[Page]) -> list[Page]:
        """Copy the first of these pages, as many as there is room for; returns the others."""
        slots = self._slots.alloc_up_to(min(len(pages), self._limit - self._num_used))
        taken, others = list(pages[: len(slots)]), list(pages[len(slots) :])
        self._num_used += len(slots)
        if not taken:
            return others
        move = self._copy([page.device_page for page in taken], slots)
        for page, slot in zip(taken, slots, strict=True):
            page.slot = slot
            page.chain.moving.add(page)
            page.chain.num_copying += 1
        self._copies.append((move, taken))
        return others

    def landed(self) -> list[Copied]:
        """Copies that have ended since the last call; their pages move no more."""
        ended = [copy for copy in self._copies if copy[0].is_done]
        if not ended:
            return []
        self._copies = [copy for copy in self._copies if not any(copy is one for one in ended)]
        return [self._land(move, pages) for move, pages in ended]

    def free(self, page: Page) -> None:
        """Give a page's slot back; a storage call that outlived its deadline keeps it till then."""
        assert page.slot is not None
        self._slots.free([page.slot])
        self._num_used -= 1
        page.slot = None

    def stop(self) -> None:
        """End the thread that copies, where there is one."""
        if isinstance(self._backup, ThreadedBackup):
            self._backup.stop()

    def _copy(self, pages: Sequence[int], slots: Sequence[int]) -> Move:
        try:
            return self._backup.backup(pages, slots)
        except Exception as error:
            log.exception("copying KV pages to the host could not begin")
            failed: Future[Move] = Future()
            failed.set_exception(error)
            return _Threaded(failed)

    def _land(self, move: Move, pages: list[Page]) -> Copied:
        for page in pages:
            page.chain.moving.discard(page)
            page.chain.num_copying -= 1
        try:
            move.wait()  # ended: it says whether all is there
        except TransferError:
            for page in pages:
                self.free(page)
            return Copied(pages, 0, 0.0, False)
        return Copied(pages, move.num_bytes, move.seconds or 0.0, True)


def background_backup(mover: PageMover, device_type: str) -> Backup:
    """A GPU's copies are begun by the loop, on a stream of their own; a CPU's on a thread."""
    return mover if device_type != "cpu" else ThreadedBackup(mover)


class ThreadedBackup:
    """Copies that a mover would do in its caller's time, in the order they were asked for."""

    def __init__(self, mover: Backup) -> None:
        self._mover = mover
        self._workers = Workers(1, "offload-copy")

    def backup(self, pages: Sequence[int], slots: Sequence[int]) -> Move:
        return _Threaded(self._workers.submit(self._mover.backup, pages, slots))

    def stop(self) -> None:
        """End the thread behind what it is doing."""
        self._workers.stop()


class _Threaded:
    """A move on the thread; see `page_mover.Move`."""

    def __init__(self, future: Future[Move]) -> None:
        self._future = future

    @property
    def num_bytes(self) -> int:
        return self._future.result(_DEADLINE_S).num_bytes

    @property
    def is_done(self) -> bool:
        return self._future.done()

    @property
    def seconds(self) -> float | None:
        return self._future.result().seconds if self._future.done() else None

    def wait(self) -> None:
        try:
            self._future.result(_DEADLINE_S).wait()
        except TransferError:
            raise
        except Exception as error:
            raise TransferError(f"copying KV pages failed: {error}") from error

    def hold_device(self) -> None:
        """Who asked keeps the pages until the move is done; nothing overtakes it."""
