"""The device pages of the requests that this node owns: reserved whole, cached at the end."""

from __future__ import annotations

from kvloop.decode.request import OwnedRequest
from kvloop.engine.device_cache import DeviceCache
from kvloop.shared_cache.hicache_names import EvictionPolicy


class RequestPages:
    """Moves pages between the pool, a request and the prefix tree."""

    def __init__(self, num_pages: int, policy: EvictionPolicy = "lru") -> None:
        self.cache = DeviceCache(num_pages, policy)

    def reserve(self, owner: OwnedRequest) -> bool:
        """All pages that the request can need, or none: a running request is never preempted."""
        priority = owner.request.priority
        matched = self.cache.match(owner.reusable_keys, priority) if owner.reads_device else []
        self.cache.lock(owner.keys[: len(matched)])
        fresh = self.cache.reserve(owner.num_pages - len(matched), matched[-1] if matched else None)
        if fresh is None:
            self.cache.unlock(owner.keys[: len(matched)])
            return False
        owner.num_matched = len(matched)
        owner.pages = matched + fresh
        return True

    def take_offered(self, owner: OwnedRequest, offered: list[int]) -> None:
        """The pages offered to a sender leave the request, for the quarantine."""
        start = owner.num_matched
        assert owner.pages[start : start + len(offered)] == offered
        del owner.pages[start : start + len(offered)]

    def replace_offered(self, owner: OwnedRequest, count: int) -> bool:
        """Fresh pages in the place of those taken; False where there are too few."""
        fresh = self.cache.reserve(count)
        if fresh is None:
            return False
        owner.pages[owner.num_matched : owner.num_matched] = fresh
        return True

    def release(self, owner: OwnedRequest) -> None:
        """Cache the full pages of a request that got its KV; free the rest."""
        if not owner.output or owner.request.cache == "off":
            self.drop(owner)
            return
        full = min(len(owner.keys), owner.num_kv // owner.page_size)
        priority = owner.request.priority
        duplicates = self.cache.insert(owner.keys[:full], owner.pages[:full], priority)
        mine = set(owner.pages[owner.num_matched :])
        self.cache.unlock(owner.keys[: owner.num_matched])
        self.cache.free([page for page in duplicates if page in mine] + owner.pages[full:])
        owner.pages = []

    def drop(self, owner: OwnedRequest) -> None:
        """Free all that a request holds."""
        self.cache.unlock(owner.keys[: owner.num_matched])
        self.cache.free(owner.pages[owner.num_matched :])
        owner.pages, owner.num_matched = [], 0
