"""What must be true of the three tiers at any time, told page by page and slot by slot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from faulty_store import FaultyStore
from hicache_node import (
    NAMESPACE,
    PAGE,
    SHAPE,
    Content,
    HiCacheNode,
    content_of,
    holds,
    page_content,
)
from memory_backend import eventually

from kvloop.prefill.job import Job
from kvloop.shared_cache.hicache_parts import HostRun, PageSource
from kvloop.shared_cache.page_object import check
from kvloop.shared_cache.tree_node import ABSENT, Node, Tier

STORING = 0


def expected_sources(node: HiCacheNode, job: Job) -> list[PageSource]:
    """Where each page that a lease begun now need not compute is, by looking at all of them."""
    keys = job.keys[: job.num_reusable]
    in_device = host = [ABSENT] * len(keys)
    if job.reads_tree:
        in_device, host = (node.tree.values(tier, keys) for tier in (Tier.DEVICE, Tier.HOST))
    fetched = job.fetched
    first, writers = (fetched.first, fetched.writers) if fetched is not None else (0, ())
    sources: list[PageSource] = []
    for index in range(len(keys)):
        if in_device[index] != ABSENT and len(sources) == sources.count("device"):
            sources.append("device")
        elif 0 <= index - first < len(writers):
            sources.append(writers[index - first])
        elif host[index] != ABSENT:
            sources.append("host")
        else:
            break
    return sources


class Audit:
    """Looks at everything that a node has; `jobs` are all that have not ended."""

    def __init__(
        self,
        node: HiCacheNode,
        jobs: Sequence[Job],
        computed: Sequence[Job],
        stores: Sequence[FaultyStore],
    ) -> None:
        self.node, self.jobs, self.computed, self.stores = node, jobs, computed, stores
        self.cache, self.tree = node.cache, node.tree
        self.reading = list(node.prefetcher._reading)
        self.tails = list(node.controller._tails._reading.values())

    def check(self) -> None:
        """Raise AssertionError where anything is not as it must be."""
        self.device_pages_have_one_holder()
        self.host_slots_have_the_owners_that_use_them()
        self.pages_hold_what_their_keys_say()
        self.l3_holds_what_its_keys_say()
        self.marks_are_true()
        self.shares_hold()
        self.node.heard.check(self.node.tree)

    # --- who has what ---------------------------------------------------------------------------

    def device_pages_have_one_holder(self) -> None:
        allocator = self.cache._device
        free = [page for page in range(allocator.num_pages) if allocator._is_free[page]]
        in_tree = [page for page, _ in self.in_tier(Tier.DEVICE)]
        own = [page for job in self.jobs if job.lease is not None for page in job.lease.own]
        leaving = [page for _, pages in self.cache._leaving for page in pages]
        holders = Counter(free) + Counter(in_tree) + Counter(own) + Counter(leaving)
        assert holders == Counter(range(allocator.num_pages)), (free, in_tree, own, leaving)
        for move in self.node.mover.under_way():
            if move.path == "load_back":
                assert set(move.pages) <= {*own, *leaving}, "a page may be used under its load"
            elif not move.is_held:
                assert set(move.pages) <= set(in_tree), "a page may be used under its copy"

    def host_slots_have_the_owners_that_use_them(self) -> None:
        owners = Counter(slot for slot, _ in self.in_tier(Tier.HOST))
        for flight in self.cache._flights:
            owners.update(flight.slots)
        for run in self.runs():
            owners.update(run.slots)
        for prefetch in self.reading:
            owners.update(prefetch.slots[prefetch.num_given :])
        owners.update(self.tail_slots())
        for job in self.jobs:
            owners.update(job.fetched.slots if job.fetched is not None else ())
            owners.update([job.fetched_tail.slot] if job.fetched_tail is not None else ())
            if job.prefetch is not None and job.prefetch.is_done:
                owners.update(job.prefetch.slots[: len(job.prefetch.writers)])

        def is_balanced() -> bool:
            in_calls = Counter[int]()
            for store in self.stores:
                in_calls.update(store.in_calls)
            expected = owners + (in_calls if self.node.staging is None else Counter())
            return expected == Counter(dict(enumerate(self.node.pool._owners)))

        # A storage call gives its slots back a moment after it has ended.
        assert is_balanced() or eventually(is_balanced), (owners, self.node.pool._owners)
        free = self.node.pool._owners.count(0)
        assert self.node.pool.num_free == free

    def tail_slots(self) -> list[int]:
        """Of tails on their way, or that have come and were not taken."""
        found = [job.tail for job in self.jobs if job.tail is not None and job.tail.is_done]
        return [tail.slot for tail in (*self.tails, *found) if tail.slot is not None]

    def runs(self) -> Iterable[HostRun]:
        """All that are to be written to L3."""
        yield from self.cache.marks._runs
        yield from self.node.writer.runs
        yield from (flight.run for flight in self.cache._flights if flight.run is not None)

    def in_tier(self, tier: Tier) -> list[tuple[int, bytes]]:
        """Value and key of each of the tree's pages in a tier."""
        return [
            (value, node.key(index))
            for node in self.tree._nodes()
            for index, value in enumerate(node.values[tier])
            if value != ABSENT
        ]

    # --- what is in them ------------------------------------------------------------------------

    def pages_hold_what_their_keys_say(self) -> None:
        node = self.node
        for page, key in self.in_tier(Tier.DEVICE):
            assert holds(node.mover.device[page], key), f"device page {page}"
        flights = [flight for flight in self.cache._flights if flight.path == "backup"]
        arriving = {slot for flight in flights for slot in flight.slots}
        for slot, key in self.in_tier(Tier.HOST):
            assert slot in arriving or holds(node.pool.payload(0)[slot], key), f"slot {slot}"
        for run in (*self.cache.marks._runs, *node.writer.runs):
            for slot, key in zip(run.slots, run.page_keys, strict=True):
                assert holds(node.pool.payload(0)[slot], key), f"slot {slot} on its way to L3"
        for prefetch in self.reading:
            for slot, key in zip(
                prefetch.slots[: len(prefetch.writers)],
                prefetch.keys[prefetch.first :],
                strict=False,
            ):
                is_mine = prefetch.slots.index(slot) >= prefetch.num_given
                assert not is_mine or holds(node.pool.payload(0)[slot], key), f"fetched {slot}"
        for job in self.jobs:
            self.job_has_its_pages(job)

    def job_has_its_pages(self, job: Job) -> None:
        if job.fetched is not None:
            keys = job.keys[job.fetched.first : job.fetched.end]
            for slot, key in zip(job.fetched.slots, keys, strict=True):
                assert holds(self.node.pool.payload(0)[slot], key), f"fetched slot {slot}"
        if job.lease is None:
            return
        load = job.lease.load
        is_loaded = load is None or (load.is_done and load.error is None)  # type: ignore[attr-defined]
        num_there = len(job.lease.sources) if is_loaded else job.lease.sources.count("device")
        if any(job is other for other in self.computed):
            num_there = len(job.lease.pages)
        for index, page in enumerate(job.lease.pages[:num_there]):
            mine = self.node.mover.device[page].tobytes()
            assert mine == page_content(job, index).tobytes(), f"page {index} of a lease"
        tail = job.lease.tail
        if tail is not None and job.lease.tail_load is None and num_there == len(job.lease.sources):
            assert job.tail is not None and job.tail.tail is not None
            assert holds(node_page(self.node, job, tail.index), job.tail.tail.key), "a tail"
            assert job.num_done == num_there * PAGE + tail.num_tokens

    def l3_holds_what_its_keys_say(self) -> None:
        for store in self.stores:
            for key, page in list(store.pages.items()):  # stalled calls may end now
                view = memoryview(page)
                if check(view, SHAPE, key, NAMESPACE, 0).writer is not None:
                    assert page[: SHAPE.payload_bytes] == content_of(key).tobytes(), (
                        "sealed, but wrong"
                    )

    # --- what is said of them -------------------------------------------------------------------

    def marks_are_true(self) -> None:
        """A page that is known to be stored was put into this very store."""
        if self.node.store.generation != self.node.controller._generation:
            return  # the node has had no turn yet to notice another store
        on_the_way = {key for run in self.runs() for key in run.page_keys}
        for value, key in self.in_tier(Tier.STORAGE):
            if value == STORING:
                assert key in on_the_way, "said to be on its way to L3"
            else:
                assert key in self.stores[-1].ever, "said to be in L3"

    def shares_hold(self) -> None:
        config = self.node.config
        fetching = [slot for p in self.reading for slot in p.slots[p.num_given :]]
        fetching += [tail.slot for tail in self.tails if tail.slot is not None]
        num_tails = len(self.tail_slots()) - len(self.tails)
        share = max(1, int(config.hicache_prefetch_share * self.node.pool.num_slots))
        assert len(fetching) <= share, "pages under way hold more than their share"
        assert self.cache.host.num_fetching == len(fetching)
        waiting = [job.prefetch for job in self.jobs if job.prefetch and job.prefetch.is_done]
        num_held = len(fetching) + sum(len(prefetch.writers) for prefetch in waiting) + num_tails
        assert self.cache.host.num_held == num_held <= share, "or wait for their request"
        quotas = config.hicache_tenant_quotas
        for owner in {node.owner for node in self.tree._nodes()} - {""}:
            mine = {slot for node in self.tree._nodes() for slot in _slots(node, owner)}
            fetching = [p.slots[p.num_given :] for p in self.reading if p.owner == owner]
            mine |= {slot for slots in fetching for slot in slots}
            mine |= {tail.slot for tail in self.tails if tail.owner == owner and tail.slot}
            quota = quotas.get(owner, quotas.get("*"))
            assert quota is None or len(mine) <= quota, f"{owner} is over its quota"


def node_page(node: HiCacheNode, job: Job, index: int) -> Content:
    """What is on the device in a page of the job's."""
    assert job.lease is not None
    return node.mover.device[job.lease.pages[index]]


def _slots(node: Node, owner: str) -> list[int]:
    values = node.values[Tier.HOST] if node.owner == owner else []
    return [value for value in values if value != ABSENT]
