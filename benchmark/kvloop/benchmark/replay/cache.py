"""The real cache, driven as the prefill node drives it, one request after the other."""

from __future__ import annotations

from collections.abc import Sequence

from kvloop.benchmark.replay.memory import Memory
from kvloop.benchmark.replay.reference import Sources
from kvloop.benchmark.replay.trace import Keys
from kvloop.shared_cache.hicache import HiCache
from kvloop.shared_cache.hicache_names import EvictionPolicy, WritePolicy
from kvloop.shared_cache.hicache_parts import Fetched, HiCacheConfig, Lease
from kvloop.shared_cache.slot_owners import SlotOwners
from kvloop.shared_cache.tree_node import Tier
from kvloop.shared_cache.wire import Role

_RUNS = 1 << 20


class ReplayedCache:
    """HiCache over pools of keys, and an L3 that forgets nothing."""

    def __init__(
        self,
        *,
        l1_pages: int,
        l2_pages: int,
        policy: EvictionPolicy,
        write_policy: WritePolicy,
        threshold: int = 2,
    ) -> None:
        self._slots = SlotOwners(l2_pages)
        self._memory = Memory(l1_pages, l2_pages)
        config = HiCacheConfig(
            write_policy=write_policy,
            write_through_threshold=threshold,
            device_policy=policy,
            host_policy=policy,
            prefetch_share=1.0,
        )
        self._cache = HiCache(l1_pages, self._slots, self._memory, config)
        self._cache.marks.is_attached = True
        self._keys = Keys()
        self._stored: dict[bytes, bytes] = {}
        """L3: key to content."""

    def keys(self, pages: Sequence[int]) -> list[bytes]:
        """The keys of a request's pages; the router computes them in a real cluster."""
        return self._keys.of(pages)

    def serve(self, keys: Sequence[bytes], priority: int = 0) -> Sources:
        """One request, from its arrival to its end."""
        fetched = self._prefetch(keys)
        num = len(keys)
        lease = self._cache.acquire(
            keys, num_pages=num, num_readable=num, fetched=fetched, priority=priority
        )
        assert lease is not None, "L1 is smaller than one request"
        self._compute(keys, lease)
        self._cache.publish(lease)
        self._cache.release(lease)
        self._cache.poll()
        self._store()
        return _sources(lease, num)

    def contents(self) -> tuple[set[int], set[int], set[int]]:
        """Pages in L1, L2 and L3."""
        device, host = (self._in_tree(tier) for tier in (Tier.DEVICE, Tier.HOST))
        return device, host, {self._keys.page_of[key] for key in self._stored}

    def check(self) -> None:
        """Every page and slot is the tree's or free, and holds what it should."""
        tree = self._cache.tree
        assert self._slots.num_free == self._slots.num_slots - tree.num_pages(Tier.HOST)
        assert self._cache.num_available == self._cache.num_device_pages
        for tier, memory in ((Tier.DEVICE, self._memory.pages), (Tier.HOST, self._memory.slots)):
            for node in tree.nodes(tier):
                for index in node.tail(tier, len(node)):
                    assert memory[node.values[tier][index]] == node.key(index)

    def _prefetch(self, keys: Sequence[bytes]) -> Fetched:
        first = self._cache.look_up(keys)
        end = first
        while end < len(keys) and keys[end] in self._stored:
            end += 1
        slots = self._cache.host.take_for_fetch(end - first, "", spare=keys)
        for slot, key in zip(slots, keys[first:], strict=False):
            self._memory.slots[slot] = self._stored[key]
        writers: list[Role] = ["prefill"] * len(slots)
        fetched = Fetched(first=first, slots=tuple(slots), writers=tuple(writers))
        self._cache.adopt(keys, fetched)
        self._cache.host.landed(len(slots), "")
        self._cache.host.handed_over(len(slots))
        return fetched

    def _compute(self, keys: Sequence[bytes], lease: Lease) -> None:
        """Check the content of what was reused, and write the rest."""
        num_reused, memory = len(lease.sources), self._memory.pages
        for page, key in zip(lease.pages[:num_reused], keys, strict=False):
            assert memory[page] == key, "a page was served with another one's content"
        for page, key in zip(lease.pages[num_reused:], keys[num_reused:], strict=True):
            memory[page] = key

    def _store(self) -> None:
        for run in self._cache.marks.take_runs(_RUNS):
            for slot, key in zip(run.slots, run.page_keys, strict=True):
                self._stored[key] = self._memory.slots[slot]
            self._cache.marks.stored(run, [True] * len(run.slots))

    def _in_tree(self, tier: Tier) -> set[int]:
        return {
            self._keys.page_of[node.key(index)]
            for node in self._cache.tree.nodes(tier)
            for index in node.tail(tier, len(node))
        }


def _sources(lease: Lease, num: int) -> Sources:
    device, host = lease.sources.count("device"), lease.sources.count("host")
    storage = len(lease.sources) - device - host
    return Sources(device=device, host=host, storage=storage, computed=num - len(lease.sources))
