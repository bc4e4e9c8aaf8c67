"""Looks in the shared cache for the partial page that a prompt continues, and reads it into L2."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from kvloop.shared_cache.hicache import HiCache
from kvloop.shared_cache.hicache_parts import FetchedTail
from kvloop.shared_cache.page_store import PageStore
from kvloop.shared_cache.tail import Tail, decode_record, longest_match, record_name
from kvloop.shared_cache.wire import Role
from kvloop.shared_cache.workers import Workers

log = logging.getLogger("kvloop.prefill")
_THREADS = 2


@dataclass(slots=True, kw_only=True, eq=False)
class TailSearch:
    """One prompt's; made and moved on by `Tails`."""

    keys: Sequence[bytes]
    """Of the full pages before the tail."""
    parent: bytes | None
    """What the tail's key begins with: the last of them, or the chain's seed."""
    tokens: Sequence[int]
    """Of the prompt, from the tail's first one on: those that a tail may hold."""
    most: int
    """How many of them may come from a tail: the prompt's last token is always computed."""
    owner: str
    tail: Tail | None = None
    slot: int | None = None
    """Where it is read to; this search's own until it is taken."""
    writer: Role | None = None
    """Set once the tail is in its slot."""
    has_failed: bool = False
    """There is a record of no format known here, or looking ended in an error."""
    is_done: bool = False
    is_stopped: bool = False
    """The prompt goes on without."""

    @property
    def num_usable(self) -> int:
        """Tokens that need not be computed if it is found; at most, before it is."""
        return min(self.tail.num_tokens if self.tail else len(self.tokens), self.most)


class Tails:
    """`turn` is called by the loop; two threads ask and read, within the store's deadlines."""

    def __init__(
        self, store: PageStore, cache: HiCache, count: Callable[[str, int], None], is_on: bool
    ) -> None:
        """`count` is told of what became of tokens that were looked for."""
        self._store, self._host, self._count = store, cache.host, count
        self.is_on = is_on
        self._threads = Workers(_THREADS if is_on else 0, "tail")
        self._asking: dict[Future[None], TailSearch] = {}
        self._reading: dict[Future[None], TailSearch] = {}

    def start(self, search: TailSearch) -> None:
        """Look for it."""
        self._asking[self._threads.submit(self._ask, search)] = search

    def turn(self) -> None:
        """Give slots to tails that were found; end those that have been read."""
        for future in [f for f in self._asking if f.done()]:
            self._begin(_noted(self._asking.pop(future), future))
        for future in [f for f in self._reading if f.done()]:
            self._end(_noted(self._reading.pop(future), future))

    def take(self, search: TailSearch) -> FetchedTail | None:
        """What was found, its slot the caller's; one that is still looked for is given up."""
        if not search.is_done:
            search.is_stopped = True
            return None
        if search.tail is None or search.slot is None or search.writer is None:
            return None
        slot, search.slot = search.slot, None
        self._host.handed_over(1)
        return FetchedTail(
            index=len(search.keys),
            num_tokens=search.num_usable,
            slot=slot,
            writer=search.writer,
        )

    def close(self) -> None:
        """Begin nothing more."""
        for search in (*self._asking.values(), *self._reading.values()):
            search.is_stopped = True
        self._threads.stop()

    # --- the loop's side ------------------------------------------------------------------------

    def _begin(self, search: TailSearch) -> None:
        if search.is_stopped or search.tail is None:
            self._give_up(search)
            return
        slots = self._host.take_for_fetch(1, search.owner, spare=search.keys)
        if not slots:
            search.is_stopped = True
            self._give_up(search)
            return
        (search.slot,) = slots
        self._reading[self._threads.submit(self._read, search)] = search

    def _end(self, search: TailSearch) -> None:
        assert search.slot is not None
        self._host.landed(1, search.owner)
        if search.writer is not None and not search.is_stopped:
            search.is_done = True
            return
        self._host.handed_over(1)
        self._host.slots.free([search.slot])
        search.slot = None
        self._give_up(search)

    def _give_up(self, search: TailSearch) -> None:
        search.is_done = True
        result = "fault" if search.has_failed else "unused" if search.is_stopped else "miss"
        self._count(result, search.num_usable)

    # --- the threads' side ----------------------------------------------------------------------

    def _ask(self, search: TailSearch) -> None:
        record = None if search.is_stopped else self._store.get_small(record_name(search.parent))
        if record is not None:
            tails = decode_record(record)
            search.has_failed = tails is None
            search.tail = longest_match(tails or [], search.parent, search.tokens)

    def _read(self, search: TailSearch) -> None:
        assert search.tail is not None and search.slot is not None
        if not search.is_stopped:
            (search.writer,) = self._store.load([search.tail.key], [search.slot])


def _noted(search: TailSearch, future: Future[None]) -> TailSearch:
    """The search, which knows whether its thread ended in an error."""
    error = future.exception()
    if error is not None:
        log.error("looking for a tail failed: %r", error)
        search.has_failed = True
    return search
