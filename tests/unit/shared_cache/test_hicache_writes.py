"""When pages are copied from L1 to L2: each write policy, and copies that fail or are late."""

from __future__ import annotations

from typing import Any

import pytest
from hicache_model import Audit
from hicache_node import HiCacheNode, holds, keys_of

from kvloop.shared_cache.hicache_names import WritePolicy
from kvloop.shared_cache.tree_node import ABSENT, Tier


def make(policy: WritePolicy, **flags: Any) -> HiCacheNode:
    return HiCacheNode(
        None, num_pages=8, num_slots=20, flags={"hicache_write_policy": policy, **flags}
    )


def in_host(node: HiCacheNode, pages: list[int]) -> int:
    return sum(slot != ABSENT for slot in node.tree.values(Tier.HOST, keys_of(pages)))


def in_device(node: HiCacheNode, pages: list[int]) -> int:
    return sum(page != ABSENT for page in node.tree.values(Tier.DEVICE, keys_of(pages)))


def serve(node: HiCacheNode, *prompts: list[int]) -> None:
    for pages in prompts:
        node.serve(pages)
        node.settle()


def check(node: HiCacheNode) -> None:
    Audit(node, [], [], []).check()


def test_write_through_copies_pages_as_soon_as_they_are_computed() -> None:
    node = make("write_through")
    serve(node, [1, 2, 3])
    assert in_host(node, [1, 2, 3]) == 3
    check(node)


def test_write_through_copies_no_page_twice() -> None:
    node = make("write_through")
    serve(node, [1, 2, 3], [1, 2, 3], [1, 2, 4])
    assert node.metrics.pages["backup", "done"] == 4


@pytest.mark.parametrize("threshold", [2, 3])
def test_selective_copies_a_page_at_its_threshold_of_uses_and_not_before(threshold: int) -> None:
    node = make("write_through_selective", hicache_write_through_threshold=threshold)
    for _ in range(threshold - 1):
        serve(node, [1, 2, 3])
        assert in_host(node, [1, 2, 3]) == 0
    serve(node, [1, 2, 3])
    assert in_host(node, [1, 2, 3]) == 3
    check(node)


def test_selective_copies_only_those_pages_of_a_prompt_that_were_used_so_often() -> None:
    node = make("write_through_selective")
    serve(node, [1, 2, 3], [1, 2, 4])
    assert node.tree.values(Tier.HOST, keys_of([1, 2, 3]))[2] == ABSENT
    assert node.tree.values(Tier.HOST, keys_of([1, 2, 4]))[2] == ABSENT
    assert in_host(node, [1, 2]) == 2


def test_write_back_copies_nothing_before_l1_lets_it_go() -> None:
    node = make("write_back")
    serve(node, [1, 2, 3], [1, 2, 3])
    assert node.metrics.pages["backup", "done"] == 0


def test_write_back_copies_what_leaves_l1_and_no_more() -> None:
    node = make("write_back")
    serve(node, [1, 2, 3], [4, 5, 6, 7])
    assert (in_device(node, [1, 2, 3]), in_host(node, [1, 2, 3])) == (3, 0)
    serve(node, [8])  # two pages, and one is free
    assert (in_device(node, [1, 2, 3]), in_host(node, [1, 2, 3])) == (2, 1)
    check(node)


def test_write_back_loses_nothing_that_was_in_l1_while_l2_has_room() -> None:
    node = make("write_back")
    prompts = [[first, 50, 51] for first in range(6)]
    for pages in prompts:
        node.serve(pages)  # the copies are still under way when the next one comes
        check(node)
    for pages in prompts:
        device, host = (node.tree.values(tier, keys_of(pages)) for tier in (Tier.DEVICE, Tier.HOST))
        assert all(max(places) != ABSENT for places in zip(device, host, strict=True))
    node.settle()
    check(node)


def test_write_back_keeps_the_first_of_the_leaving_pages_where_l2_has_room_for_some() -> None:
    node = HiCacheNode(None, num_pages=6, num_slots=2, flags={"hicache_write_policy": "write_back"})
    serve(node, [1, 2, 3, 4, 5], [6, 7, 8, 9, 10])
    assert in_host(node, [1]) + in_device(node, [1]) == 1
    assert node.metrics.pages["backup", "no_slot"] == 3


def test_a_page_that_leaves_l1_is_not_overwritten_before_its_copy_is_made() -> None:
    node = make("write_back")
    serve(node, [1, 2, 3], [4, 5, 6])
    job = node.serve([7, 8, 9, 10, 11])  # written into their pages, the copies yet to be made
    assert job.lease is not None and job.lease.sources == []
    for slot, key in zip(
        node.tree.values(Tier.HOST, keys_of([1, 2, 3])), keys_of([1, 2, 3]), strict=True
    ):
        assert slot == ABSENT or holds(node.pool.payload(0)[slot], key)
    node.settle()
    check(node)


def test_a_page_whose_copy_is_under_way_does_not_leave_l1() -> None:
    node = make("write_through")
    node.serve([1, 2, 3])
    node.cache.flush()
    assert in_device(node, [1, 2, 3]) == 3
    node.settle()
    node.cache.flush()
    assert in_device(node, [1, 2, 3]) == 0


def test_a_slot_that_leaves_l2_during_its_copy_is_not_used_again_before_its_end() -> None:
    node = make("write_through")
    node.serve([1, 2, 3])
    slots = node.tree.values(Tier.HOST, keys_of([1, 2, 3]))
    node.cache.flush()
    assert in_host(node, [1, 2, 3]) == 0
    taken = node.pool.alloc_up_to(20)
    assert len(taken) == 17 and set(taken).isdisjoint(slots)
    node.settle()
    assert node.pool.num_free == 3


@pytest.mark.parametrize("is_at_once", [False, True])
def test_a_copy_that_fails_leaves_no_host_page(is_at_once: bool) -> None:
    node = make("write_through")
    node.mover.fails_at_once = is_at_once
    node.serve([1, 2, 3])
    for move in node.mover.under_way():
        move.fail()
    node.cache.poll()
    assert in_host(node, [1, 2, 3]) == 0 and node.pool.num_free == 20
    assert node.metrics.pages["backup", "failed"] == 3
    node.mover.fails_at_once = False
    serve(node, [1, 2, 3])  # the next use copies them
    assert in_host(node, [1, 2, 3]) == 3
    check(node)


def test_a_failed_copy_takes_no_page_away_that_another_copy_put_there_since() -> None:
    node = make("write_through")
    node.serve([1, 2, 3])
    node.pool.free(node.tree.evict(Tier.HOST, 3))
    node.serve([1, 2, 3])  # the same pages into other slots
    first, second = node.mover.under_way()
    first.fail()
    second.finish()
    node.cache.poll()
    assert in_host(node, [1, 2, 3]) == 3
    check(node)


def test_what_left_l1_by_a_copy_that_failed_is_not_found() -> None:
    node = make("write_back")
    serve(node, [1, 2, 3])
    node.mover.fails_at_once = True
    other, job = node.come([4, 5, 6, 7, 8, 9]), node.come([1, 2, 3])
    assert node.controller.place(other)
    node.controller.forget(other)
    assert node.controller.place(job) and job.lease is not None  # in the same turn
    assert job.lease.sources == ["device"]


def test_pages_that_l2_has_no_slot_for_are_counted() -> None:
    node = HiCacheNode(None, num_pages=8, num_slots=2)
    serve(node, [1, 2, 3])
    assert in_host(node, [1, 2]) == 2
    assert node.metrics.pages["backup", "no_slot"] == 1


def test_a_policy_that_changes_while_requests_run_holds_from_the_next_page_on() -> None:
    node = make("write_back")
    serve(node, [1, 2, 3])
    node.controller.set_policies(None, "write_through")
    serve(node, [4, 5])
    assert (in_host(node, [1, 2, 3]), in_host(node, [4, 5])) == (0, 2)
    serve(node, [1, 2, 3])
    assert in_host(node, [1, 2, 3]) == 3
    node.controller.set_policies(None, "write_back")
    serve(node, [6, 7])
    assert in_host(node, [6, 7]) == 0


def test_a_copy_that_cannot_even_begin_leaves_neither_host_page_nor_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = make("write_through")

    def backup(pages: object, slots: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(node.mover, "backup", backup)
    node.serve([1, 2, 3])
    assert node.metrics.pages["backup", "failed"] == 3
    node.cache.flush()
    assert node.pool.num_free == 20 and node.cache.num_available == 8
