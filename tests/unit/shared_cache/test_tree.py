"""The radix tree against a page-by-page reference."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from kvloop.shared_cache.hicache_names import EvictionPolicy
from kvloop.shared_cache.tree import RadixTree
from kvloop.shared_cache.tree_node import ABSENT, Tier
from kvloop.shared_cache.tree_parts import Leaving

POLICIES: list[EvictionPolicy] = ["lru", "lfu", "slru", "priority"]


def chain(tokens: Sequence[int]) -> list[bytes]:
    keys, digest = [], b""
    for token in tokens:
        digest = hashlib.sha256(digest + bytes([token])).digest()
        keys.append(digest)
    return keys


@dataclass
class Page:
    parent: bytes | None
    owner: str
    values: dict[Tier, int] = field(default_factory=dict)
    last_used: int = 0
    hits: int = 1
    priority: int = 0
    refs: int = 0


class Reference:
    """One dict of pages, everything found by looking at all of them."""

    def __init__(self, policy: EvictionPolicy) -> None:
        self.pages: dict[bytes, Page] = {}
        self.policy = policy
        self.clock = 0

    def known(self, keys: list[bytes]) -> list[bytes]:
        return keys[: next((i for i, k in enumerate(keys) if k not in self.pages), len(keys))]

    def run(self, tier: Tier, keys: list[bytes], first: int = 0) -> list[int]:
        values = []
        for key in self.known(keys)[first:]:
            if tier not in self.pages[key].values:
                break
            values.append(self.pages[key].values[tier])
        return values

    def touch(self, key: bytes, priority: int) -> None:
        self.pages[key].last_used = self.clock
        self.pages[key].priority = max(self.pages[key].priority, priority)

    def match(self, keys: list[bytes], priority: int) -> tuple[list[int], list[int]]:
        self.clock += 1
        for key in self.known(keys):
            self.pages[key].hits += 1
            self.touch(key, priority)
        device = self.run(Tier.DEVICE, keys)
        return device, self.run(Tier.HOST, keys, len(device))

    def insert(
        self, tier: Tier, keys: list[bytes], values: list[int], owner: str, priority: int
    ) -> list[int]:
        if not values:
            return []
        self.clock += 1
        left = []
        for i, key in enumerate(keys):
            if key not in self.pages:
                self.pages[key] = Page(keys[i - 1] if i else None, owner)
            self.touch(key, priority)
            at = i - (len(keys) - len(values))
            if at >= 0:
                mine = self.pages[key].values
                if mine.setdefault(tier, values[at]) != values[at]:
                    left.append(values[at])
        self.prune()
        return left

    def rank(self, page: Page) -> tuple[int, ...]:
        first = {
            "lru": 0,
            "lfu": page.hits,
            "slru": int(page.hits >= 2),
            "priority": page.priority,
        }
        return first[self.policy], page.last_used

    def evict(self, tier: Tier, n: int, owner: str | None) -> list[int]:
        gone = []
        while len(gone) < n:
            behind = set()  # keys with a page of the tier behind them
            for page in self.pages.values():
                if tier in page.values or page.parent is None:
                    up = page.parent if tier in page.values else None
                    while up is not None:
                        behind.add(up)
                        up = self.pages[up].parent
            free = [
                (self.rank(page) if tier is not Tier.STORAGE else (0, page.last_used), key)
                for key, page in self.pages.items()
                if tier in page.values
                and key not in behind
                and not (tier is Tier.DEVICE and page.refs)
                and owner in (None, page.owner)
            ]
            if not free:
                break
            gone.append(self.pages[min(free)[1]].values.pop(tier))
        self.prune()
        return gone

    def prune(self) -> None:
        while True:
            parents = {page.parent for page in self.pages.values()}
            dead = [k for k, p in self.pages.items() if not p.values and k not in parents]
            if not dead:
                return
            for key in dead:
                del self.pages[key]


prompts = st.lists(st.integers(0, 2), max_size=7)
operations = st.one_of(
    st.tuples(st.just("match"), prompts, st.integers(0, 2)),
    st.tuples(st.just("insert"), prompts, st.sampled_from(list(Tier)), st.integers(0, 7)),
    st.tuples(st.just("evict"), st.sampled_from(list(Tier)), st.integers(1, 4), st.booleans()),
    st.tuples(st.just("lock"), prompts),
    st.tuples(st.just("unlock"), st.integers(0, 5)),
    st.tuples(st.just("forget"), prompts, st.booleans()),
)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=examples(150), deadline=None)
@given(steps=st.lists(operations, max_size=40))
def test_tree_does_what_a_page_by_page_reference_does(policy: EvictionPolicy, steps: list) -> None:
    tree, reference = RadixTree(policy), Reference(policy)
    locked: list[list[bytes]] = []
    num_made = 0
    for name, *args in steps:
        if name == "match":
            keys = chain(args[0])
            assert tree.match(keys, args[1]) == reference.match(keys, args[1])
        elif name == "insert":
            keys, tier = chain(args[0]), args[1]
            first = min(args[2], len(keys))
            if tier is Tier.DEVICE:  # a run on the device has no hole
                first = min(first, len(reference.run(tier, keys)))
            values = [num_made + i if tier is not Tier.STORAGE else 1 for i in range(first, 8)]
            values = values[: len(keys) - first]
            num_made += 8
            owner = f"tenant-{args[0][0]}" if args[0] else ""
            left = tree.insert(tier, keys, values, owner=owner, priority=args[2])
            assert left == reference.insert(tier, keys, values, owner, args[2])
        elif name == "evict":
            owner = "tenant-1" if args[2] else None
            assert tree.evict(args[0], args[1], owner) == reference.evict(args[0], args[1], owner)
        elif name == "lock":
            keys = chain(args[0])
            keys = keys[: len(reference.run(Tier.DEVICE, keys))]
            tree.lock(keys)
            locked.append(keys)
            for key in keys:
                reference.pages[key].refs += 1
        elif name == "unlock" and locked:
            keys = locked.pop(args[0] % len(locked))
            tree.unlock(keys)
            for key in keys:
                reference.pages[key].refs -= 1
        elif name == "forget":
            if args[1]:
                tree.forget_stored()
                known = list(reference.pages)
            else:
                keys = chain(args[0])
                known = reference.known(keys)
                tree.assign(Tier.STORAGE, keys, range(len(keys)), [ABSENT] * len(keys))
            for key in known:
                reference.pages[key].values.pop(Tier.STORAGE, None)
            reference.prune()
        check_totals(tree, reference)


def check_totals(tree: RadixTree, reference: Reference) -> None:
    pages = reference.pages.values()
    for tier in Tier:
        assert tree.num_pages(tier) == sum(tier in page.values for page in pages)
        mine = sum(tier in page.values for page in pages if page.owner == "tenant-1")
        assert tree.num_pages(tier, "tenant-1") == mine
    free = sum(Tier.DEVICE in page.values and not page.refs for page in pages)
    assert tree.num_evictable == free
    for key in [key for key, page in reference.pages.items() if not page.values.keys()]:
        assert any(page.parent == key for page in pages)


def test_prompts_that_part_inside_a_node_split_it_and_keep_their_pages() -> None:
    tree = RadixTree()
    tree.insert(Tier.DEVICE, chain([1, 2, 3, 4]), [10, 11, 12, 13])
    assert tree.insert(Tier.DEVICE, chain([1, 2, 9]), [20, 21, 22]) == [20, 21]
    assert tree.find(chain([1, 2, 3, 4])).device == [10, 11, 12, 13]
    assert tree.find(chain([1, 2, 9])).device == [10, 11, 22]


def test_a_match_is_followed_on_the_host_where_the_device_ends() -> None:
    tree = RadixTree()
    keys = chain([1, 2, 3, 4])
    tree.insert(Tier.DEVICE, keys[:3], [0, 1, 2])
    tree.insert(Tier.HOST, keys, [5, 6, 7, 8])
    tree.evict(Tier.DEVICE, 1)
    assert tree.match(keys) == ([0, 1], [7, 8])


def test_a_page_with_a_hole_before_it_is_found_again_once_the_hole_is_filled() -> None:
    tree = RadixTree()
    keys = chain([1, 2, 3])
    tree.insert(Tier.HOST, keys, [7])  # the last page only
    assert tree.match(keys) == ([], [])
    tree.insert(Tier.DEVICE, keys[:2], [0, 1])
    assert tree.match(keys) == ([0, 1], [7])


def test_a_spill_may_put_a_leaving_page_into_another_tier() -> None:
    tree = RadixTree()
    keys = chain([1, 2, 3])
    tree.insert(Tier.DEVICE, keys, [0, 1, 2])

    def spill(left: list[Leaving]) -> None:
        for node, indices, values in left:
            for index, value in zip(indices, values, strict=True):
                tree.put(node, Tier.HOST, index, 50 + value)

    assert tree.evict(Tier.DEVICE, 2, spill=spill) == [2, 1]
    assert tree.match(keys) == ([0], [51, 52])


def test_a_spill_is_told_once_of_all_that_leaves_and_its_nodes_outlive_other_evictions() -> None:
    tree = RadixTree()
    first, second = chain([1, 2, 3]), chain([1, 2, 4])
    tree.insert(Tier.DEVICE, first, [0, 1, 2])
    tree.insert(Tier.DEVICE, second, [0, 1, 3])
    tree.insert(Tier.HOST, second, [9])
    told: list[list[int]] = []

    def spill(left: list[Leaving]) -> None:
        told.append([value for leaving in left for value in leaving.values])
        assert tree.evict(Tier.HOST, 1) == [9]  # nothing else held that branch
        for node, indices, values in left:
            for index, value in zip(indices, values, strict=True):
                tree.put(node, Tier.HOST, index, 50 + value)

    assert tree.evict(Tier.DEVICE, 4, spill=spill) == told[0] == [2, 3, 1, 0]
    assert len(told) == 1
    assert tree.match(first) == ([], [50, 51, 52])
    assert tree.match(second) == ([], [50, 51, 53])


def test_nodes_name_every_host_page_by_its_whole_run() -> None:
    tree = RadixTree()
    tree.insert(Tier.HOST, chain([1, 2, 3]), [0, 1, 2])
    tree.insert(Tier.HOST, chain([1, 2, 4]), [3])
    tree.insert(Tier.DEVICE, chain([5]), [3])
    found = {
        tuple(tree.keys_to(node)): list(node.values[Tier.HOST]) for node in tree.nodes(Tier.HOST)
    }
    runs = {(1, 2): [0, 1], (1, 2, 3): [2], (1, 2, 4): [3]}
    assert found == {tuple(chain(tokens)): slots for tokens, slots in runs.items()}


def test_assigning_returns_what_belongs_to_pages_that_are_gone() -> None:
    tree = RadixTree()
    keys = chain([1, 2, 3])
    tree.insert(Tier.DEVICE, keys[:2], [0, 1])
    assert tree.assign(Tier.HOST, keys, [1, 2], [8, 9]) == [9]
    assert tree.values(Tier.HOST, keys) == [ABSENT, 8, ABSENT]


def test_a_long_prompts_page_costs_few_bytes() -> None:
    import tracemalloc

    keys = [i.to_bytes(32, "little") for i in range(50_000)]
    tracemalloc.start()
    tree = RadixTree()
    for start in range(0, len(keys), 50):
        tree.insert(Tier.DEVICE, keys[start : start + 50], list(range(start, start + 50)))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert tree.num_pages(Tier.DEVICE) == 50_000
    assert size / 50_000 < 120


@pytest.mark.parametrize("policy", POLICIES)
def test_pages_that_are_spared_stay_and_may_go_the_next_time(policy: EvictionPolicy) -> None:
    tree = RadixTree(policy)
    oldest, newer = chain([1, 2, 3]), chain([4, 5, 6])
    tree.insert(Tier.HOST, oldest, [10, 11, 12])
    tree.insert(Tier.HOST, newer, [20, 21, 22])
    assert tree.evict(Tier.HOST, 2, spare=oldest) == [22, 21]
    assert tree.evict(Tier.HOST, 2, spare=oldest) == [20]
    assert tree.evict(Tier.HOST, 3) == [12, 11, 10]


def test_pages_that_a_request_expects_leave_after_others() -> None:
    tree = RadixTree()
    oldest, newer = chain([1, 2]), chain([3, 4])
    tree.insert(Tier.HOST, oldest, [10, 11])
    tree.insert(Tier.HOST, newer, [20, 21])
    tree.expect(oldest[:1])
    assert tree.evict(Tier.HOST, 3) == [11, 21, 20]
    assert tree.uses(oldest) == [1], "to be expected is no use"


def test_pages_before_one_that_is_busy_stay() -> None:
    tree = RadixTree()
    tree.insert(Tier.HOST, chain([1, 2, 3]), [10, 11, 12])
    tree.insert(Tier.HOST, chain([4]), [20])
    assert tree.evict(Tier.HOST, 4, is_busy={12}.__contains__) == [20]
    assert tree.evict(Tier.HOST, 4) == [12, 11, 10]
