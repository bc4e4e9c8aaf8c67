"""Slots of L2: whose pages leave for whom, and how many may be on their way from L3."""

from __future__ import annotations

from hicache_node import keys_of

from kvloop.shared_cache.hicache_parts import HiCacheConfig
from kvloop.shared_cache.host_tier import HostTier
from kvloop.shared_cache.slot_owners import SlotOwners
from kvloop.shared_cache.tree import RadixTree
from kvloop.shared_cache.tree_node import Tier


class L2:
    """Ten slots, and pages of tenants in them."""

    def __init__(self, quotas: dict[str, int] | None = None, share: float = 0.5) -> None:
        self.tree, self.slots = RadixTree(), SlotOwners(10)
        config = HiCacheConfig(tenant_quotas=quotas or {}, prefetch_share=share)
        self.tier = HostTier(self.slots, self.tree, config)
        self._num_prompts = 0

    def put(self, n: int, owner: str) -> int:
        """Up to `n` pages of a new prompt; how many found a place."""
        self._num_prompts += 1
        keys = keys_of([self._num_prompts] * n)
        slots = self.tier.take(n, owner)
        self.tree.insert(Tier.HOST, keys[: len(slots)], slots, owner=owner)
        return len(slots)

    def num(self, owner: str) -> int:
        return self.tree.num_pages(Tier.HOST, owner)


def test_the_oldest_pages_leave_for_new_ones_where_nobody_has_a_quota() -> None:
    l2 = L2()
    l2.put(6, "a")
    l2.put(4, "b")
    assert l2.put(5, "c") == 5
    assert (l2.num("a"), l2.num("b"), l2.num("c")) == (1, 4, 5)


def test_a_tenant_at_its_quota_makes_room_among_its_own_pages() -> None:
    l2 = L2({"b": 3})
    l2.put(3, "a")  # the oldest
    l2.put(3, "b")
    assert l2.put(2, "b") == 2
    assert (l2.num("a"), l2.num("b")) == (3, 3)


def test_a_tenant_gets_no_more_than_its_quota_though_all_else_is_free() -> None:
    l2 = L2({"b": 3})
    assert l2.put(5, "b") == 3
    assert l2.slots.num_free == 7


def test_a_tenant_under_its_quota_gets_others_pages_as_anyone_does() -> None:
    l2 = L2({"b": 3})
    l2.put(10, "a")
    assert l2.put(2, "b") == 2
    assert l2.num("a") == 8


def test_a_star_is_the_quota_of_every_tenant_that_has_none_of_its_own() -> None:
    l2 = L2({"*": 2, "big": 4})
    assert l2.put(5, "someone") == 2
    assert l2.put(5, "big") == 4


def test_a_tenant_has_no_limit_where_neither_its_name_nor_a_star_is_given() -> None:
    assert L2({"b": 1}).put(9, "a") == 9


def test_requests_of_no_tenant_have_no_limit() -> None:
    assert L2({"*": 1}).put(9, "") == 9


def test_a_quota_of_nothing_keeps_a_tenant_out_of_l2() -> None:
    assert L2({"b": 0}).put(3, "b") == 0


def test_pages_on_their_way_from_l3_count_for_the_quota() -> None:
    l2 = L2({"b": 3})
    assert len(l2.tier.take_for_fetch(2, "b")) == 2
    assert l2.put(3, "b") == 1


def test_a_tenant_whose_quota_is_on_its_way_gets_no_slot_and_loses_no_page() -> None:
    l2 = L2({"b": 3}, share=1.0)
    l2.tier.take_for_fetch(2, "b")
    assert l2.put(1, "b") == 1
    # One of the two has arrived and is in the tree already, while the other is on its way.
    l2.tree.insert(Tier.HOST, keys_of([99]), [9], owner="b")
    assert l2.tier.take(0, "b") == []
    assert l2.num("b") == 2


def test_pages_on_their_way_hold_their_share_and_no_more() -> None:
    l2 = L2(share=0.3)
    assert len(l2.tier.take_for_fetch(2, "a")) == 2
    assert len(l2.tier.take_for_fetch(5, "b")) == 1
    assert l2.tier.take_for_fetch(1, "c") == []
    assert l2.tier.num_fetching == 3


def test_another_page_may_come_once_one_has_come_and_its_request_has_it() -> None:
    l2 = L2(share=0.3)
    l2.tier.take_for_fetch(3, "a")
    l2.tier.landed(1, "a")
    assert l2.tier.take_for_fetch(3, "b") == []
    l2.tier.handed_over(1)
    assert len(l2.tier.take_for_fetch(3, "b")) == 1


def test_however_small_the_share_one_page_may_come() -> None:
    assert len(L2(share=0.01).tier.take_for_fetch(3, "a")) == 1


def test_slots_that_somebody_still_reads_are_not_given_out() -> None:
    l2 = L2()
    l2.put(10, "a")
    held = l2.tree.run(Tier.HOST, keys_of([1] * 10))[-4:]
    l2.slots.retain(held)
    assert set(l2.tier.take(6, "b")).isdisjoint(held)


def test_more_than_all_is_never_taken() -> None:
    assert len(L2().tier.take(99, "a")) == 10
