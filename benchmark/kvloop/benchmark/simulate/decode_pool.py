"""A simulated decode node's pages: reserved whole, shared once they are full, the real tree."""

from __future__ import annotations

from collections.abc import Sequence

from kvloop.benchmark.simulate.job import Held
from kvloop.shared_cache.hicache_names import EvictionPolicy
from kvloop.shared_cache.page_allocator import PageAllocator
from kvloop.shared_cache.tree import RadixTree
from kvloop.shared_cache.tree_node import Tier


class DecodePool:
    """Every page is free, a request's own, or the tree's."""

    def __init__(self, num_pages: int, policy: EvictionPolicy) -> None:
        self.num_pages = num_pages
        self._free = PageAllocator(num_pages)
        self._tree = RadixTree(policy)

    @property
    def num_available(self) -> int:
        """Pages that a reservation could get now."""
        return self._free.num_free + self._tree.num_evictable

    def num_found(self, keys: Sequence[bytes]) -> int:
        """Leading pages that are here; leaves no trace."""
        return len(self._tree.find(keys).device)

    def reserve(self, keys: Sequence[bytes], num_pages: int) -> Held | None:
        """All pages that a request can need, those found of `keys` first; or none."""
        matched = self._tree.find(keys).device
        found = keys[: len(matched)]
        self._tree.lock(found)
        num = num_pages - len(matched)
        if num > self.num_available:
            self._tree.unlock(found)
            return None
        self._tree.match(found)
        missing = num - self._free.num_free
        if missing > 0:
            self._free.free(self._tree.evict(Tier.DEVICE, missing))
        fresh = self._free.alloc(num, matched[-1] if matched else None)
        assert fresh is not None
        return Held(keys=found, pages=matched + fresh)

    def publish(self, held: Held, keys: Sequence[bytes]) -> None:
        """Share the pages of `keys`, which are full; the request keeps reading them."""
        held.duplicates = self._tree.insert(Tier.DEVICE, keys, held.pages[: len(keys)])
        self._tree.lock(keys)
        self._tree.unlock(held.keys)
        held.keys = keys

    def release(self, held: Held) -> None:
        """The request has ended: what it shared stays until others need the room."""
        self._tree.unlock(held.keys)
        self._free.free([*held.duplicates, *held.pages[len(held.keys) :]])
        held.pages, held.duplicates, held.keys = [], [], ()
