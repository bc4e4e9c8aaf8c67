"""Device pages of the requests that this node owns: reserved whole, shared once they are full."""

from __future__ import annotations

from kvloop.decode.request import OwnedRequest
from kvloop.engine.device_cache import DeviceCache
from kvloop.engine.event_recorder import EventRecorder
from kvloop.shared_cache.hicache_names import EvictionPolicy


class RequestPages:
    """Moves pages between the pool, a request and the prefix tree.

    A request's pages by their index in its sequence: `num_matched` that the tree had when they were
    reserved, then its own. `publish` gives the full ones to the tree, where other requests find
    them; they stay locked for this one, which may read `pages` until `release`.
    """

    def __init__(
        self,
        num_pages: int,
        policy: EvictionPolicy = "lru",
        events: EventRecorder | None = None,
    ) -> None:
        self.cache = DeviceCache(num_pages, policy, events)
        self._events = events

    def reserve(self, owner: OwnedRequest) -> bool:
        """All pages that the request can need, or none: a running request is never preempted."""
        assert not owner.pages and not owner.num_locked
        keys, priority = owner.reusable_keys, owner.request.priority
        matched = self.cache.find(keys) if owner.reads_device else []
        held = keys[: len(matched)]
        self.cache.lock(held)
        fresh = self.cache.reserve(owner.num_pages - len(matched), matched[-1] if matched else None)
        if fresh is None:
            self.cache.unlock(held)
            return False
        self.cache.use(held, priority)
        owner.num_matched = owner.num_locked = len(matched)
        owner.pages = matched + fresh
        return True

    def take_offered(self, owner: OwnedRequest, offered: list[int]) -> None:
        """The pages offered to a sender leave the request, for the quarantine."""
        start = owner.num_matched
        assert start == owner.num_locked, "pages are offered before they are shared"
        assert owner.pages[start : start + len(offered)] == offered
        del owner.pages[start : start + len(offered)]

    def replace_offered(self, owner: OwnedRequest, count: int) -> bool:
        """Fresh pages in the place of those taken; False where there are too few."""
        fresh = self.cache.reserve(count)
        if fresh is None:
            return False
        owner.pages[owner.num_matched : owner.num_matched] = fresh
        return True

    def publish(self, owner: OwnedRequest) -> None:
        """Share all pages that are full of KV, where the cache is on; may be called again.

        Of a page that the tree has already the request keeps its own copy until `release`: it may
        be read by a move that is under way.
        """
        if owner.request.cache == "off":
            return
        owner.grow_keys()
        full = owner.keys[: owner.num_kv // owner.page_size]
        pages = owner.pages[: len(full)]
        if self._events is not None:
            self._events.learn(
                owner.request_id, full, lambda: owner.request.prompt + owner.output, owner.seed
            )
        owner.duplicates = self.cache.insert(full, pages, owner.request.priority)
        if self._events is not None:
            self._events.forget(owner.request_id)
        self.cache.lock(full)
        self.cache.unlock(owner.keys[: owner.num_locked])
        owner.num_locked = len(full)

    def finish(self, owner: OwnedRequest) -> None:
        """The request, whose KV was here, has ended: share what is full, free what was not used.

        Its pages with KV, the partial last one too, stay its own until `release`.
        """
        self.publish(owner)
        num_used = -(-owner.num_kv // owner.page_size)
        self.cache.free(owner.pages[num_used:])
        del owner.pages[num_used:]

    def release(self, owner: OwnedRequest) -> None:
        """Nobody reads the request's pages any more: what it shared stays cached, the rest goes."""
        self.cache.unlock(owner.keys[: owner.num_locked])
        self.cache.free(owner.duplicates + owner.pages[owner.num_locked :])
        owner.pages, owner.duplicates = [], []
        owner.num_matched = owner.num_locked = 0
