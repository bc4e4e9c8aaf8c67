"""What three tiers must do, said as simply as possible: the yardstick of the real cache.

Page by page, with plain dicts and sets, and nothing of kvloop's tree or pools. The rules:

1.  A request's sources: the leading pages that are in L1, then those that are in L2, then those in
    L3; the rest is computed. It is one use of all its pages.
2.  None of its pages leaves a tier while it is served.
3.  Pages found in L3 enter L2, room made for all of them: one that L2 has behind a gap is read all
    the same, and its second place is free again when the request has ended. Then all its pages
    enter L1. Then those that the write policy wants enter L2: write_through all,
    write_through_selective those used `threshold` times, write_back none. What is in L2 is written
    to L3, which forgets nothing.
4.  Pages enter a tier together: as many as lack room leave it first, one after the other: of those
    that no page in the tier continues, the one with the lowest rank.
5.  With write_back the pages that leave L1 so enter L2 together, but for those it has.
6.  A page that is in no tier is forgotten, its uses too.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Policy = Literal["lru", "lfu", "slru", "priority"]
WritePolicy = Literal["write_through", "write_through_selective", "write_back"]
Rank = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Pages of one request, in this order from the first on."""

    device: int
    host: int
    storage: int
    computed: int


@dataclass(slots=True)
class Use:
    """What is remembered of a page's use."""

    count: int = 0
    last: int = 0
    priority: int = 0


RANKS: dict[Policy, Callable[[Use], Rank]] = {
    "lru": lambda use: (0, use.last),
    "lfu": lambda use: (use.count, use.last),
    "slru": lambda use: (int(use.count >= 2), use.last),
    "priority": lambda use: (use.priority, use.last),
}


class Tier:
    """A set of pages with a limit."""

    def __init__(self, capacity: int, parent: dict[int, int | None]) -> None:
        self.capacity = capacity
        self.pages: set[int] = set()
        self._parent = parent
        self._below: Counter[int] = Counter()
        """Pages of the tier that continue a page, at any distance."""
        self._heap: list[tuple[Rank, int]] = []

    def add(self, page: int) -> None:
        assert page not in self.pages and len(self.pages) < self.capacity
        self.pages.add(page)
        self._count_above(page, 1)

    def remove(self, page: int) -> None:
        assert page in self.pages and not self._below[page]
        self.pages.remove(page)
        self._count_above(page, -1)

    def offer(self, page: int, rank: Rank) -> None:
        """The page's rank, whenever that changes or the page may have become one that can leave."""
        if page in self.pages and not self._below[page]:
            heapq.heappush(self._heap, (rank, page))

    def lowest(self, rank_of: Callable[[int], Rank], busy: frozenset[int]) -> int:
        """The page that is to leave next."""
        passed = []
        while True:
            rank, page = heapq.heappop(self._heap)
            if page not in self.pages or self._below[page] or rank != rank_of(page):
                continue
            if page not in busy:
                break
            passed.append((rank, page))
        for entry in passed:
            heapq.heappush(self._heap, entry)
        return page

    def _count_above(self, page: int, change: int) -> None:
        above = self._parent[page]
        while above is not None:
            self._below[above] += change
            above = self._parent[above]


class Reference:
    """Serves one request after the other."""

    def __init__(
        self,
        *,
        l1_pages: int,
        l2_pages: int,
        policy: Policy,
        write_policy: WritePolicy,
        threshold: int = 2,
    ) -> None:
        self._parent: dict[int, int | None] = {}
        self.device = Tier(l1_pages, self._parent)
        self.host = Tier(l2_pages, self._parent)
        self.stored: set[int] = set()
        self._rank = RANKS[policy]
        self._write_policy, self._threshold = write_policy, threshold
        self._uses: dict[int, Use] = {}
        self._clock = 0
        self._busy: frozenset[int] = frozenset()

    def serve(self, pages: Sequence[int], priority: int = 0) -> Sources:
        """One request, from its arrival to its end."""
        for page, parent in zip(pages, [None, *pages], strict=False):
            self._parent[page] = parent
        found = self._match(pages)
        self._busy = frozenset(pages)
        self._use(pages, priority)
        first = found.device + found.host
        fetched = pages[first : first + found.storage]
        num_twice = sum(page in self.host.pages for page in fetched)
        self._make_room(self.host, len(fetched))
        self.host.capacity -= num_twice
        self._enter_host(fetched)
        self._enter_device(pages)
        self._enter_host([page for page in pages if self._is_wanted(page)])
        self.host.capacity += num_twice
        self._busy = frozenset()
        return found

    def _match(self, pages: Sequence[int]) -> Sources:
        device = _run(pages, self.device.pages)
        host = _run(pages[device:], self.host.pages)
        storage = _run(pages[device + host :], self.stored)
        computed = len(pages) - device - host - storage
        return Sources(device=device, host=host, storage=storage, computed=computed)

    def _use(self, pages: Sequence[int], priority: int) -> None:
        self._clock += 1
        for page in pages:
            use = self._uses.setdefault(page, Use())
            use.count += 1
            use.last = self._clock
            use.priority = max(use.priority, priority)
            for tier in (self.device, self.host):
                tier.offer(page, self._rank_of(page))

    def _is_wanted(self, page: int) -> bool:
        if self._write_policy == "write_through_selective":
            return self._uses[page].count >= self._threshold
        return self._write_policy == "write_through"

    def _enter_device(self, pages: Iterable[int]) -> None:
        missing = [page for page in pages if page not in self.device.pages]
        gone = self._make_room(self.device, len(missing))
        if self._write_policy == "write_back":
            self._enter_host(gone)
        self._enter(self.device, missing)
        self._forget(gone)

    def _enter_host(self, pages: Iterable[int]) -> None:
        missing = [page for page in pages if page not in self.host.pages]
        self._make_room(self.host, len(missing))
        self._enter(self.host, missing)
        self.stored.update(missing)

    def _make_room(self, tier: Tier, num: int) -> list[int]:
        """The pages that left for it."""
        gone = []
        while len(tier.pages) + num > tier.capacity:
            page = tier.lowest(self._rank_of, self._busy)
            tier.remove(page)
            parent = self._parent[page]
            # the nearest page of the tier before it may be the next that can leave
            while parent is not None and parent not in tier.pages:
                parent = self._parent[parent]
            if parent is not None:
                tier.offer(parent, self._rank_of(parent))
            gone.append(page)
        return gone

    def _enter(self, tier: Tier, pages: Iterable[int]) -> None:
        for page in pages:
            tier.add(page)
        for page in pages:
            tier.offer(page, self._rank_of(page))

    def _forget(self, pages: Iterable[int]) -> None:
        for page in pages:
            if not any(page in tier for tier in (self.device.pages, self.host.pages, self.stored)):
                del self._uses[page]

    def _rank_of(self, page: int) -> Rank:
        return self._rank(self._uses[page])


def _run(pages: Sequence[int], tier: set[int]) -> int:
    """Leading pages that are in the tier."""
    for count, page in enumerate(pages):
        if page not in tier:
            return count
    return len(pages)
