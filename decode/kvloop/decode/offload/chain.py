"""One request's pages on their way to L3: what is missing there, what waits, what is given up.

Pure: no thread, no clock, no memory. A page that is due is in exactly one of `waiting` (on the
device only), `staged` (in a host slot, nobody reads it) or `moving` (being copied, or in a storage
call).
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, NamedTuple

from kvloop.decode.offload.policy import Storable
from kvloop.decode.request import OwnedRequest
from kvloop.shared_cache.wire import StorageState

HoleReason = Literal["failed", "evicted", "policy"]
"""Why a prompt's page was missing: prefill's write came to nothing; it was there once; prefill's
write policy left it out."""
Cause = HoleReason | Literal["deadline", "detached", "back_pressure"]
"""Why a page is given up; `failed` of an answer's: L3 did not take it, however often asked."""
_REASONS: dict[StorageState, HoleReason] = {
    "storing": "failed",
    "stored": "evicted",
    "will_not": "policy",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """A page behind a chain's full ones, under a key of its own.

    It is copied like them, and written once all of them are stored; else it is given up.
    """

    key: bytes
    index: int
    """Into the request's pages."""
    prepare: Callable[[int], None]
    """Called with the host slot on the writer's thread before each attempt to store it."""
    done: Callable[[bool], None]
    """Called once: with True on the writer's thread when it is stored, where storage calls may
    follow; with False on the loop's thread, which must not wait, when it is given up."""


@dataclass(slots=True, eq=False, kw_only=True)
class Page:
    """One page that is due to be stored."""

    chain: Chain
    index: int
    key: bytes
    due_at: float
    """When it became full, or was found missing."""
    hole: HoleReason | None = None
    """None: decode's own page, that nobody else could have stored."""
    extra: Extra | None = None
    slot: int | None = None
    num_offers: int = 0
    num_failed: int = 0

    @property
    def is_fresh(self) -> bool:
        """A page of the answer, that has just become full: back-pressure may give it up."""
        return self.hole is None and self.extra is None

    @property
    def device_page(self) -> int:
        """Where its KV is, while the request holds it."""
        return self.chain.owner.pages[self.index]


class Break(NamedTuple):
    """The chain ends before page `first`: nothing from there on is stored any more."""

    first: int
    cause: Cause


@dataclass(slots=True, eq=False, kw_only=True)
class Chain:
    """The loop thread's."""

    owner: OwnedRequest
    storable: Storable
    next_page: int
    """The first page that has not been looked at since it became full."""
    said: dict[int, StorageState]
    """Of each page that is or was in L3, or should be there."""
    unknown: list[int]
    """Pages that L3 may or may not have, ascending."""
    waiting: deque[Page] = field(default_factory=deque)
    """Ascending, as `staged`."""
    staged: list[Page] = field(default_factory=list)
    moving: set[Page] = field(default_factory=set)
    num_copying: int = 0
    """Of those moving, the ones whose device pages are being read."""
    broken: Break | None = None
    has_begun: bool = False
    """A page of the answer has become full, or the request has ended."""
    closed_at: float | None = None
    is_released: bool = False
    """The request's device pages are no longer needed here."""
    look: Future[list[bool] | None] | None = None
    """The question which of `asked` L3 has."""
    asked: list[int] = field(default_factory=list)
    num_looks: int = 0
    look_at: float = 0.0
    retry_at: float = 0.0

    @property
    def num_open(self) -> int:
        """Pages that are due, or in doubt, and neither stored nor given up."""
        due = len(self.waiting) + len(self.staged) + len(self.moving)
        return due + (len(self.unknown) if self.has_begun else 0)

    @property
    def needs_device(self) -> bool:
        """Whether the request's device pages are read, or may yet be."""
        return bool(self.waiting or self.unknown or self.num_copying)

    @property
    def is_holding(self) -> bool:
        """Whether the request has ended, and its device pages are kept for more than a copy."""
        return self.closed_at is not None and bool(self.waiting or self.unknown)

    @property
    def first_on_device(self) -> int:
        """The first page that is nowhere else, as far as is known, of a chain that is holding."""
        return min((*self.unknown[:1], *(page.index for page in islice(self.waiting, 1))))

    @property
    def is_over(self) -> bool:
        """Nothing will happen to it any more."""
        return self.is_released and not (self.staged or self.moving)

    def is_lost(self, page: Page) -> bool:
        """Whether the page lies behind where the chain is broken."""
        return self.broken is not None and page.index >= self.broken.first

    # --- pages become due ---------------------------------------------------------------------

    def fill(self, indices: Sequence[int], now: float) -> int:
        """Own pages have become full; returns how many of them a broken chain cannot use."""
        self.has_begun = True
        usable = [i for i in indices if self.broken is None or i < self.broken.first]
        for index in usable:
            self._wait(Page(chain=self, index=index, key=self.owner.keys[index], due_at=now))
        return len(indices) - len(usable)

    def add_extra(self, extra: Extra, now: float) -> bool:
        """False where the chain is broken."""
        if self.broken is not None:
            return False
        page = Page(chain=self, index=extra.index, key=extra.key, due_at=now, extra=extra)
        self.waiting.append(page)
        return True

    def learn(self, present: Sequence[bool], now: float, *, may_wait: bool) -> None:
        """L3's answer about `asked`; with `may_wait` prefill is still given time for its writes."""
        there = dict(zip(self.asked, present, strict=True))
        left = [index for index in self.unknown if index not in there]
        for index in [index for index in self.unknown if index in there]:
            if there[index]:
                self.said[index] = "stored"
            elif self.said[index] == "storing" and may_wait:
                left.append(index)
            else:
                self._miss(index, now)
        self.unknown = sorted(left)

    def doubt(self) -> None:
        """L3 may have lost what was stored: look again."""
        due = {page.index for page in (*self.waiting, *self.staged, *self.moving)}
        end = self.next_page if self.broken is None else min(self.next_page, self.broken.first)
        known = [i for i in range(end) if i in self.said and i not in due]
        self.unknown = sorted({*self.unknown, *known})
        self.look_at, self.num_looks = 0.0, 0

    def _miss(self, index: int, now: float) -> None:
        reason = _REASONS[self.said[index]]
        self._wait(
            Page(chain=self, index=index, key=self.owner.keys[index], due_at=now, hole=reason)
        )

    def _wait(self, page: Page) -> None:
        ordered = not self.waiting or self.waiting[-1].index < page.index
        self.waiting.append(page)
        if not ordered:
            self.waiting = deque(sorted(self.waiting, key=_index))

    # --- and leave ------------------------------------------------------------------------------

    def put_back(self, page: Page) -> None:
        """A page goes where it was before it moved."""
        if page.slot is None:
            self._wait(page)
        else:
            insort(self.staged, page, key=_index)

    def ready(self, now: float) -> list[Page]:
        """Pages that may be written now; an extra one only when it is the last."""
        if now < self.retry_at:
            return []
        is_last = len(self.staged) == 1 and not (self.waiting or self.moving or self.unknown)
        return [page for page in self.staged if page.extra is None or is_last]

    def break_at(self, index: int, cause: Cause) -> tuple[list[Page], int]:
        """Give up what is due from here on, and all that comes; moving pages are left alone.

        Returns the pages, and how many more there were that nobody knows L3 to have.
        """
        if self.broken is None or index < self.broken.first:
            self.broken = Break(index, cause)
        lost = [page for page in (*self.waiting, *self.staged) if page.index >= index]
        self.waiting = deque(page for page in self.waiting if page.index < index)
        self.staged = [page for page in self.staged if page.index < index]
        doubtful = [i for i in self.unknown if i >= index and self.said[i] != "stored"]
        self.unknown = [i for i in self.unknown if i < index]
        return lost, len(doubtful)


def _index(page: Page) -> int:
    return page.index
