"""What a request's pages are made of, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faulty_store import FaultyStore
from hicache_model import Audit
from hicache_node import SHAPE, HiCacheNode, content_of, holds, keys_of, object_of
from step_threads import Gate

from kvloop.prefill.job import Job
from kvloop.shared_cache.tree_node import Tier


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def node(store: FaultyStore) -> Iterator[HiCacheNode]:
    node = HiCacheNode(store, num_pages=12, num_slots=12)
    yield node
    node.close()


def sources(job: Job) -> list[str]:
    assert job.lease is not None
    return list(job.lease.sources)


def leave_l1(node: HiCacheNode, pages: list[int], num: int) -> None:
    """Only the last `num` pages of this prompt, which must be all that L1 holds."""
    gone = node.tree.evict(Tier.DEVICE, num)
    node.cache._device.free(gone)
    assert len(node.tree.run(Tier.DEVICE, keys_of(pages))) == len(pages) - num


def test_a_prompt_of_all_tiers_says_of_each_page_where_it_was(
    node: HiCacheNode, store: FaultyStore
) -> None:
    node.serve([1, 2])
    node.settle()
    leave_l1(node, [1, 2], 1)
    keys = keys_of([1, 2, 3, 4, 5])
    store.put(keys[2], object_of(keys[2], "prefill"))
    store.put(keys[3], object_of(keys[3], "decode"))
    job = node.serve([1, 2, 3, 4, 5])
    assert sources(job) == ["device", "host", "prefill", "decode"]


def test_a_page_fetched_for_a_request_is_storages_for_it_and_the_hosts_for_the_next(
    node: HiCacheNode, store: FaultyStore
) -> None:
    for key in keys_of([1, 2]):
        store.put(key, object_of(key, "decode"))
    assert sources(node.serve([1, 2])) == ["decode", "decode"]
    node.settle()
    leave_l1(node, [1, 2], 2)
    assert sources(node.serve([1, 2])) == ["host", "host"]


def test_the_last_token_is_computed_though_its_page_is_cached(node: HiCacheNode) -> None:
    node.serve([1, 2])
    assert sources(node.serve([1, 2], num_more=0)) == ["device"]


def test_a_request_with_the_cache_off_finds_nothing_and_leaves_nothing(
    node: HiCacheNode, store: FaultyStore
) -> None:
    node.serve([1, 2])
    node.settle()
    assert sources(node.serve([1, 2], cache="off")) == []
    node.serve([7, 8], cache="off")
    node.settle()
    assert node.tree.num_pages(Tier.DEVICE) == node.tree.num_pages(Tier.HOST) == 2
    assert set(store.pages) == set(keys_of([1, 2]))


def test_a_request_for_l3_only_reads_neither_l1_nor_l2(
    node: HiCacheNode, store: FaultyStore
) -> None:
    node.serve([1, 2])
    node.settle()
    assert sources(node.serve([1, 2], cache="l3_only")) == ["prefill", "prefill"]
    node.settle()
    store.pages.clear()
    assert sources(node.serve([1, 2], cache="l3_only")) == []


def test_what_a_request_for_l3_only_computed_is_cached_for_others(node: HiCacheNode) -> None:
    node.serve([1, 2], cache="l3_only")
    assert sources(node.serve([1, 2])) == ["device", "device"]


def test_another_tenants_pages_are_not_found(node: HiCacheNode) -> None:
    node.serve([1, 2], tenant="a")
    assert sources(node.serve([1, 2], tenant="b")) == []
    assert sources(node.serve([1, 2])) == []


def test_pages_come_up_from_the_host_bit_for_bit(node: HiCacheNode) -> None:
    node.serve([1, 2, 3])
    node.settle()
    leave_l1(node, [1, 2, 3], 3)
    node.mover.device[:] = 0
    job = node.come([1, 2, 3])
    assert node.controller.place(job) and job.lease is not None and job.lease.load is not None
    job.lease.load.await_layer(SHAPE.num_layers - 1)
    for page, key in zip(job.lease.pages, job.keys, strict=False):
        assert holds(node.mover.device[page], key)
    node.controller.forget(job)


def test_pages_of_the_first_layers_can_be_used_while_others_are_on_their_way(
    node: HiCacheNode,
) -> None:
    node.serve([1, 2])
    node.settle()
    leave_l1(node, [1, 2], 2)
    node.mover.device[:] = 0
    job = node.come([1, 2])
    assert node.controller.place(job) and job.lease is not None and job.lease.load is not None
    job.lease.load.before_layer(0)
    page, key = job.lease.pages[0], job.keys[0]
    assert (node.mover.device[page][0] == content_of(key)[0]).all()
    assert not node.mover.device[page][1].any() and not job.lease.load.is_done
    node.controller.forget(job)
    node.settle()


def test_a_host_page_that_is_being_read_is_not_overwritten_when_it_leaves_l2(
    node: HiCacheNode,
) -> None:
    node.serve([1, 2])
    node.settle()
    leave_l1(node, [1, 2], 2)
    job = node.come([1, 2])
    assert node.controller.place(job)
    slots = node.tree.evict(Tier.HOST, 2)
    node.pool.free(slots)
    assert set(node.pool.alloc_up_to(12)).isdisjoint(slots)
    node.compute(job)
    Audit(node, [job], [job], []).pages_hold_what_their_keys_say()


def test_a_page_in_use_stays_in_l1_and_keeps_its_bytes(node: HiCacheNode) -> None:
    job = node.come([1, 2, 3])
    assert node.controller.place(job)
    node.compute(job)
    node.controller.publish(job)
    node.settle()
    node.cache.flush()
    assert len(node.tree.run(Tier.DEVICE, keys_of([1, 2, 3]))) == 3
    Audit(node, [job], [job], [node_store(node)]).check()
    node.controller.forget(job)
    node.cache.flush()
    assert node.tree.num_pages(Tier.DEVICE) == 0


def node_store(node: HiCacheNode) -> FaultyStore:
    return node.backends[-1]._store


def test_a_request_waits_while_too_few_pages_can_be_freed(node: HiCacheNode) -> None:
    first, second = node.come([1, 2, 3, 4, 5, 6]), node.come([7, 8, 9, 10, 11, 12])
    assert node.controller.place(first)
    assert not node.controller.place(second) and second.lease is None
    node.controller.forget(first)
    assert node.controller.place(second)
    node.controller.forget(second)
    assert node.cache.num_available == 12


def test_a_request_that_could_not_be_placed_keeps_what_was_fetched_for_it(
    node: HiCacheNode, store: FaultyStore
) -> None:
    for key in keys_of([1, 2]):
        store.put(key, object_of(key, "decode"))
    first, second = node.come([5] * 10), node.come([1, 2])
    assert node.controller.place(first)
    read(node)
    assert not node.controller.waits(second, 0.0) and not node.controller.place(second)
    node.cache.flush()
    node.controller.forget(first)
    node.settle()
    assert node.controller.place(second)
    assert sources(second) == ["decode", "decode"]
    node.controller.forget(second)


def read(node: HiCacheNode) -> None:
    gate: Gate = node.gate
    while gate.step(0):
        node.controller.turn()
    node.controller.turn()


def test_pages_of_a_cancelled_request_are_not_used_again_under_its_load(
    node: HiCacheNode,
) -> None:
    node.serve([1, 2])
    node.settle()
    leave_l1(node, [1, 2], 2)
    job = node.come([1, 2])
    assert node.controller.place(job) and job.lease is not None
    pages = job.lease.pages
    node.controller.forget(job)
    other = node.come([5] * 8)
    assert node.controller.place(other) and other.lease is not None
    assert set(other.lease.pages).isdisjoint(pages)
    node.controller.forget(other)
    node.settle()
    assert node.cache.num_available == 12


def test_a_cancelled_request_leaves_neither_page_nor_slot_behind_at_any_stage(
    node: HiCacheNode, store: FaultyStore
) -> None:
    for key in keys_of([1, 2, 3]):
        store.put(key, object_of(key, "decode"))
    for stage in range(8):
        job = node.come([1, 2, 3, 4])
        for _ in range(stage):
            node.gate.step(0)
            node.controller.turn()
        if stage > 4 and not node.controller.waits(job, 0.0):
            assert node.controller.place(job)
        if stage > 6:
            node.compute(job)
        node.controller.forget(job)
        node.settle()
        node.cache.flush()
        assert node.pool.num_free == 12 and node.cache.num_available == 12


def test_two_requests_of_one_prompt_share_its_pages_once_both_are_computed(
    node: HiCacheNode,
) -> None:
    jobs = [node.come([1, 2, 3]), node.come([1, 2, 3])]
    for job in jobs:
        assert node.controller.place(job)
    for job in jobs:
        node.compute(job)
        node.controller.publish(job)
    assert node.tree.num_pages(Tier.DEVICE) == 3
    Audit(node, jobs, jobs, [node_store(node)]).check()
    for job in jobs:
        node.controller.forget(job)
    assert node.cache.num_available == 12 - 3  # those that are being copied
    node.settle()
    assert node.cache.num_available == 12


def test_flushing_says_how_many_pages_left_and_how_many_stayed(node: HiCacheNode) -> None:
    node.serve([1, 2])
    job = node.come([5, 6, 7])
    assert node.controller.place(job)
    node.compute(job)
    node.controller.publish(job)
    node.settle()
    assert node.cache.flush() == (2 + 5, 3)  # two of L1, five of L2
    node.controller.forget(job)
    assert node.cache.flush() == (3, 0)
