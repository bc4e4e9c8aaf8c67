"""Who may have how many slots of L2, and who goes for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kvloop.shared_cache.hicache_parts import HiCacheConfig
from kvloop.shared_cache.slot_owners import SlotOwners
from kvloop.shared_cache.tree import RadixTree
from kvloop.shared_cache.tree_node import Tier

_ANY_TENANT = "*"


class HostTier:
    """Slots for the tree's host pages, and for pages on their way from L3; one thread owns it."""

    def __init__(self, slots: SlotOwners, tree: RadixTree, config: HiCacheConfig) -> None:
        self.slots = slots
        self._tree = tree
        self._quotas = config.tenant_quotas
        self._max_fetching = max(1, int(config.prefetch_share * slots.num_slots))
        self._fetching: Counter[str] = Counter()
        self.num_held = 0
        """Slots of pages on their way from L3, or that have come and wait for their request."""

    @property
    def num_fetching(self) -> int:
        """Slots of pages on their way from L3."""
        return self._fetching.total()

    @property
    def fetch_room(self) -> int:
        """Slots that further prefetches may hold now."""
        return self._max_fetching - self.num_held

    def take(self, n: int, owner: str, spare: Sequence[bytes] = ()) -> list[int]:
        """Up to `n` slots; others' pages leave L2 for them, or the owner's where he has a quota.

        Pages of the run `spare` stay: those taken are of no use without them.
        """
        n = self._make_room_in_quota(min(n, self.slots.num_slots), owner, spare)
        missing = n - self.slots.num_free
        if missing > 0:
            self.slots.free(self._evict(missing, spare))
        return self.slots.alloc_up_to(n)

    def take_for_fetch(self, n: int, owner: str, spare: Sequence[bytes] = ()) -> list[int]:
        """The same for pages to be read from L3: they hold a bounded share.

        Each ends with `landed`, and with `handed_over`.
        """
        taken = self.take(min(n, self.fetch_room), owner, spare)
        self._fetching[owner] += len(taken)
        self.num_held += len(taken)
        return taken

    def landed(self, n: int, owner: str) -> None:
        """So many slots of `take_for_fetch` are no longer waiting for their pages."""
        self._fetching[owner] -= n
        assert self._fetching[owner] >= 0, owner

    def handed_over(self, n: int) -> None:
        """So many slots of `take_for_fetch` are their request's now, or nobody's."""
        self.num_held -= n
        assert self.num_held >= 0

    def _make_room_in_quota(self, n: int, owner: str, spare: Sequence[bytes]) -> int:
        quota = self._quota(owner)
        if quota is None:
            return n
        n = min(n, quota - self._fetching[owner])
        if n <= 0:
            return 0
        over = self._tree.num_pages(Tier.HOST, owner) + self._fetching[owner] + n - quota
        if over > 0:
            freed = self._evict(over, spare, owner)
            self.slots.free(freed)
            n -= over - len(freed)
        return max(n, 0)

    def _evict(self, n: int, spare: Sequence[bytes], owner: str | None = None) -> list[int]:
        """Slots that are free then: one that is still read for L3 would not be."""
        busy = self.slots.is_shared
        return self._tree.evict(Tier.HOST, n, owner, spare=spare, is_busy=busy)

    def _quota(self, owner: str) -> int | None:
        """None: no limit, as for all where no API keys are configured."""
        return self._quotas.get(owner, self._quotas.get(_ANY_TENANT)) if owner else None
