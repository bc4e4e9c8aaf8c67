"""Which node holds which page: what nodes said, and what was routed to them; bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from kvloop.shared_cache.tree_node import Tier

_MAX_NODES = 256
_ALL_TIERS = (Tier.DEVICE, Tier.HOST)
_Pages = OrderedDict[bytes, int]
"""By key: the tiers that have the page, a bit each; the least recently told of first."""


class PrefixIndex:
    """Pages by node's incarnation; a page's key names all pages before it, so no tree is needed.

    Knowledge ages: a page that left a node unheard stays until it is among the least recently used
    ones of an index that is full, or until a request that was sent for it made it true again.
    """

    def __init__(self, max_pages: int) -> None:
        self._max_pages = max_pages
        self._nodes: OrderedDict[str, _Pages] = OrderedDict()
        self._num_pages = 0

    def record(self, keys: Sequence[bytes], incarnation: str) -> None:
        """The node holds these pages, a run from a prompt's first on, now."""
        self.stored(incarnation, keys, Tier.DEVICE)

    def stored(self, incarnation: str, keys: Sequence[bytes], tier: Tier) -> None:
        """Pages, each following the one before it, are in a tier of the node."""
        pages = self._nodes.setdefault(incarnation, OrderedDict())
        self._nodes.move_to_end(incarnation)
        before, bit = len(pages), 1 << tier
        for key in reversed(keys):  # without its first page a run is worth nothing: that goes last
            pages[key] = pages.get(key, 0) | bit
            pages.move_to_end(key)
        self._num_pages += len(pages) - before
        while len(self._nodes) > _MAX_NODES:
            self.forget(next(iter(self._nodes)))
        while (over := self._num_pages - self._max_pages) > 0:
            self._shrink(max(self._nodes.values(), key=len), over)

    def removed(self, incarnation: str, keys: Iterable[bytes], tier: Tier | None) -> None:
        """Pages are in a tier of the node no more; None: in none."""
        pages = self._nodes.get(incarnation)
        if pages is None:
            return
        before = len(pages)
        gone = sum(1 << one for one in (_ALL_TIERS if tier is None else (tier,)))
        for key in keys:
            left = pages.get(key, 0) & ~gone
            if left:
                pages[key] = left
            else:
                pages.pop(key, None)
        self._num_pages -= before - len(pages)

    def leading_pages(self, keys: Sequence[bytes]) -> dict[str, int]:
        """For each node that holds the first page: how many pages it holds without a gap."""
        runs = {node: _run(pages, keys) for node, pages in self._nodes.items()}
        return {node: run for node, run in runs.items() if run}

    def forget(self, incarnation: str) -> int:
        """Nothing is known of the node; returns how many pages were."""
        count = len(self._nodes.pop(incarnation, ()))
        self._num_pages -= count
        return count

    def clear(self) -> int:
        """Forget all; returns how many pages were known."""
        count = len(self)
        self._nodes.clear()
        self._num_pages = 0
        return count

    def num_pages(self, incarnation: str) -> int:
        """Pages known of one node."""
        return len(self._nodes.get(incarnation, ()))

    def __len__(self) -> int:
        """Pages known, of each node its own."""
        return self._num_pages

    def _shrink(self, pages: _Pages, num: int) -> None:
        for _ in range(min(num, len(pages))):
            pages.popitem(last=False)
            self._num_pages -= 1


def _run(pages: _Pages, keys: Sequence[bytes]) -> int:
    for index, key in enumerate(keys):
        if key not in pages:
            return index
    return len(keys)
