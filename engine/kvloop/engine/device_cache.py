"""The device pool's pages and the prefix tree over them; one loop thread owns it."""

from __future__ import annotations

from collections.abc import Sequence

from kvloop.shared_cache.hicache_names import EvictionPolicy
from kvloop.shared_cache.page_allocator import PageAllocator
from kvloop.shared_cache.tree import RadixTree
from kvloop.shared_cache.tree_node import Tier
from kvloop.shared_cache.tree_parts import TierObserver


class DeviceCache:
    """L1: pages are free, held by a request, or cached in the tree (locked while read)."""

    def __init__(
        self,
        num_pages: int,
        policy: EvictionPolicy = "lru",
        observer: TierObserver | None = None,
    ) -> None:
        self._allocator = PageAllocator(num_pages)
        self._tree = RadixTree(policy, observer=observer)
        self.num_pages = num_pages

    @property
    def num_available(self) -> int:
        """Pages that a reservation could get now."""
        return self._allocator.num_free + self._tree.num_evictable

    @property
    def num_cached(self) -> int:
        """Pages that the tree holds."""
        return self._tree.num_pages()

    def reserve(self, count: int, after: int | None = None) -> list[int] | None:
        """`count` pages or none at all, evicting cached prefixes as needed.

        Pages that follow `after`, a sequence's last one, are preferred: attention reads a
        contiguous sequence without a gather, and one transfer descriptor holds it.
        """
        if count > self.num_available:
            return None
        missing = count - self._allocator.num_free
        if missing > 0:
            self._allocator.free(self._tree.evict(Tier.DEVICE, missing))
        return self._allocator.alloc(count, after)

    def free(self, pages: Sequence[int]) -> None:
        """Give pages back that no tree holds."""
        self._allocator.free(pages)

    def find(self, keys: Sequence[bytes]) -> list[int]:
        """Pages of the longest cached run of `keys`; not locked, and no use is noted."""
        return self._tree.find(keys).device

    def use(self, keys: Sequence[bytes], priority: int = 0) -> None:
        """Note a use of a cached run, for the eviction policy."""
        self._tree.match(keys, priority)

    def lock(self, keys: Sequence[bytes]) -> None:
        """Keep a cached run from eviction until `unlock` of the same keys."""
        self._tree.lock(keys)

    def unlock(self, keys: Sequence[bytes]) -> None:
        self._tree.unlock(keys)

    def insert(self, keys: Sequence[bytes], pages: Sequence[int], priority: int = 0) -> list[int]:
        """Cache a run from its first key on; returns pages not taken, still the caller's."""
        return self._tree.insert(Tier.DEVICE, keys, pages, priority=priority)

    def flush(self) -> tuple[int, int]:
        """Drop all that is not in use; returns pages freed and pages that stayed."""
        freed = self._tree.evict(Tier.DEVICE, self._tree.num_pages())
        self._allocator.free(freed)
        return len(freed), self._tree.num_pages()
