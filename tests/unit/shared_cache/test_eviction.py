"""Who leaves L1 and L2 first, by policy: two prompts with a past, and one that needs room."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest
from hicache_node import HiCacheNode, keys_of

from kvloop.shared_cache.eviction import Used, rank_of
from kvloop.shared_cache.hicache_names import EvictionPolicy
from kvloop.shared_cache.tree_node import Tier

OLD, YOUNG, NEW = [1, 2], [3, 4], [5, 6]

OFTEN_THEN_ONCE = [(OLD, 0), (OLD, 0), (OLD, 0), (YOUNG, 0)]
OFTEN_THEN_TWICE = [(OLD, 0), (OLD, 0), (OLD, 0), (YOUNG, 0), (YOUNG, 0)]
URGENT_THEN_NOT = [(OLD, 1), (YOUNG, 0)]
URGENT_ONCE_THEN_NOT = [(OLD, 1), (OLD, 0), (YOUNG, 0)]

LEAVES_FIRST = [
    ("lru", OFTEN_THEN_ONCE, OLD),
    ("lru", URGENT_THEN_NOT, OLD),
    ("lfu", OFTEN_THEN_ONCE, YOUNG),
    ("lfu", OFTEN_THEN_TWICE, YOUNG),
    ("lfu", URGENT_THEN_NOT, OLD),
    ("slru", OFTEN_THEN_ONCE, YOUNG),
    ("slru", OFTEN_THEN_TWICE, OLD),
    ("slru", URGENT_THEN_NOT, OLD),
    ("priority", OFTEN_THEN_ONCE, OLD),
    ("priority", URGENT_THEN_NOT, YOUNG),
    ("priority", URGENT_ONCE_THEN_NOT, YOUNG),
]


def after(node: HiCacheNode, history: list[tuple[list[int], int]]) -> HiCacheNode:
    for pages, priority in history:
        node.serve(pages, priority=priority)
        node.settle()
    node.serve(NEW)
    node.settle()
    return node


def left_in(node: HiCacheNode, tier: Tier) -> dict[str, int]:
    names = {"old": OLD, "young": YOUNG}
    return {name: len(node.tree.run(tier, keys_of(pages))) for name, pages in names.items()}


@pytest.mark.parametrize(("policy", "history", "leaver"), LEAVES_FIRST)
def test_l1_lets_go_what_its_policy_ranks_lowest(
    policy: EvictionPolicy, history: list[tuple[list[int], int]], leaver: list[int]
) -> None:
    # Two prompts have two pages each, the new one needs three: one of six must leave.
    flags = {"radix_eviction_policy": policy, "hicache_eviction_policy": "lru"}
    node = after(HiCacheNode(None, num_pages=6, num_slots=9, flags=flags), history)
    expected = {"old": 1, "young": 2} if leaver is OLD else {"old": 2, "young": 1}
    assert left_in(node, Tier.DEVICE) == expected
    assert left_in(node, Tier.HOST) == {"old": 2, "young": 2}
    node.close()


@pytest.mark.parametrize(("policy", "history", "leaver"), LEAVES_FIRST)
def test_l2_lets_go_what_its_own_policy_ranks_lowest(
    policy: EvictionPolicy, history: list[tuple[list[int], int]], leaver: list[int]
) -> None:
    other = "lfu" if policy in ("lru", "priority") else "lru"
    flags = {"radix_eviction_policy": other, "hicache_eviction_policy": policy}
    node = after(HiCacheNode(None, num_pages=12, num_slots=5, flags=flags), history)
    expected = {"old": 1, "young": 2} if leaver is OLD else {"old": 2, "young": 1}
    assert left_in(node, Tier.HOST) == expected
    assert left_in(node, Tier.DEVICE) == {"old": 2, "young": 2}
    node.close()


def test_l2_has_l1s_policy_where_it_has_none_of_its_own() -> None:
    flags = {"radix_eviction_policy": "lfu"}
    node = after(HiCacheNode(None, num_pages=12, num_slots=5, flags=flags), OFTEN_THEN_ONCE)
    assert left_in(node, Tier.HOST) == {"old": 2, "young": 1}
    node.close()


def test_a_page_leaves_after_all_that_follow_it_however_low_it_ranks() -> None:
    node = HiCacheNode(None, num_pages=8, num_slots=9)
    node.serve([1, 2, 3, 4])
    node.settle()
    node.serve([5, 6, 7])
    assert len(node.tree.run(Tier.DEVICE, keys_of([1, 2, 3, 4]))) == 4
    node.serve([8, 9, 10])
    assert len(node.tree.run(Tier.DEVICE, keys_of([1, 2, 3, 4]))) == 1
    node.close()


def test_a_page_in_use_does_not_leave_however_low_it_ranks() -> None:
    node = HiCacheNode(None, num_pages=7, num_slots=9)
    node.serve(OLD)
    node.settle()
    user = node.come(OLD)
    assert node.controller.place(user)  # two pages found, one of its own
    node.serve(YOUNG)
    node.settle()
    node.serve(NEW)
    assert left_in(node, Tier.DEVICE) == {"old": 2, "young": 1}
    node.controller.forget(user)
    node.close()


@pytest.mark.parametrize("policy", ["lru", "lfu", "slru", "priority"])
def test_no_ranks_fall_by_another_use(policy: EvictionPolicy) -> None:
    rank = rank_of(policy)
    past = cast(Used, SimpleNamespace(last_used=3, hits=1, priority=2))
    for later in (
        SimpleNamespace(last_used=4, hits=2, priority=2),
        SimpleNamespace(last_used=4, hits=1, priority=3),
    ):
        assert rank(cast(Used, later)) > rank(past)
