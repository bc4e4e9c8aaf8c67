"""Reading a prompt's pages from L3 while it queues, one thread step after the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faulty_store import FaultyStore
from hicache_node import HiCacheNode, holds, keys_of, object_of
from prefetch_steps import PROMPT, ask, end, fetched, in_host, make, read, store_of_prompt

from kvloop.shared_cache.tree_node import Tier


@pytest.fixture
def store() -> FaultyStore:
    return store_of_prompt()


@pytest.fixture
def node(store: FaultyStore) -> Iterator[HiCacheNode]:
    node = make(store)
    yield node
    node.close()


# --- looking --------------------------------------------------------------------------------------


def test_pages_are_read_while_the_prompt_queues(node: HiCacheNode) -> None:
    job = node.come(PROMPT)
    ask(node)
    read(node)
    node.controller.turn()
    assert in_host(node) == 4 and job.ready_at is None
    assert not node.controller.waits(job, 0.0) and fetched(job) == 4
    end(node, job)


def test_only_what_l1_and_l2_lack_is_looked_for(node: HiCacheNode) -> None:
    node.serve(PROMPT[:2], cache="l3_only")
    node.settle()
    job = node.come(PROMPT)
    ask(node)
    read(node)
    node.controller.turn()
    assert not node.controller.waits(job, 0.0)
    assert job.fetched is not None and (job.fetched.first, fetched(job)) == (2, 2)
    end(node, job)


def test_a_prompt_that_l2_holds_whole_is_not_looked_for(node: HiCacheNode) -> None:
    node.serve(PROMPT)
    job = node.come(PROMPT)
    assert job.prefetch is None and not node.prefetcher.num_active
    end(node, job)


def test_nothing_is_looked_for_while_no_l3_is_attached(node: HiCacheNode) -> None:
    node.guard.detach()
    job = node.come(PROMPT)
    assert job.prefetch is None and not node.controller.waits(job, 0.0)
    end(node, job)


def test_a_request_without_cache_is_not_looked_for(node: HiCacheNode) -> None:
    assert node.come(PROMPT, cache="off").prefetch is None


def test_a_rest_shorter_than_the_threshold_is_not_looked_for(store: FaultyStore) -> None:
    node = make(store, hicache_prefetch_threshold=9)  # tokens: four pages and a half
    assert node.come(PROMPT).prefetch is None
    assert node.metrics.unfulfilled == {"threshold": 4}
    assert node.come([*PROMPT, 5]).prefetch is not None
    node.close()


def test_pages_that_another_prompt_is_reading_are_not_read_twice(node: HiCacheNode) -> None:
    first, second = node.come(PROMPT), node.come(PROMPT)
    assert node.prefetcher.num_active == 1
    assert node.controller.waits(second, 0.0)
    ask(node)
    read(node)
    node.controller.turn()
    assert not node.controller.waits(second, 0.0)
    assert node.controller.place(second) and second.lease is not None
    assert second.lease.sources == ["host"] * 4
    end(node, first, second)


def test_who_waits_for_anothers_pages_looks_itself_when_that_one_leaves(node: HiCacheNode) -> None:
    first, second = node.come(PROMPT), node.come(PROMPT)
    ask(node)
    node.controller.forget(first)
    assert node.controller.waits(second, 0.0) and second.prefetch is not None
    node.settle()
    assert not node.controller.waits(second, 0.0) and fetched(second) == 4
    end(node, second)


# --- arriving -------------------------------------------------------------------------------------


def test_what_has_arrived_is_used_where_the_rest_is_not_waited_for(node: HiCacheNode) -> None:
    job = node.come(PROMPT)
    ask(node)
    read(node, num_batches=1)
    assert node.controller.waits(job, 1.0) and not node.controller.waits(job, 1e6)
    assert fetched(job) == 2
    assert node.controller.place(job) and job.lease is not None
    assert job.lease.sources == ["decode", "decode"]
    end(node, job)


def test_what_arrives_too_late_for_its_prompt_still_enters_l2(node: HiCacheNode) -> None:
    job = node.come(PROMPT)
    ask(node)
    node.gate.step(0)
    node.gate.step(0)  # behind the read of two pages, which are not reported yet
    node.controller.waits(job, 1.0)
    assert not node.controller.waits(job, 1e6) and fetched(job) == 0
    node.settle()
    assert in_host(node) == 2
    slots = node.tree.values(Tier.HOST, keys_of(PROMPT))
    assert holds(node.pool.payload(0)[slots[1]], keys_of(PROMPT)[1])
    end(node, job)


def test_a_stopped_read_goes_no_further_than_its_batch(node: HiCacheNode) -> None:
    job = node.come(PROMPT)
    ask(node)
    node.gate.step(0)
    node.gate.step(0)  # behind the first of two
    node.controller.forget(job)
    node.settle()
    assert in_host(node) == 2
    end(node)


def test_a_page_that_is_lost_between_question_and_answer_ends_the_run(
    node: HiCacheNode, store: FaultyStore
) -> None:
    job = node.come(PROMPT)
    ask(node)
    del store.pages[keys_of(PROMPT)[2]]
    read(node)
    node.controller.turn()
    assert not node.controller.waits(job, 0.0) and fetched(job) == 2
    assert node.metrics.unfulfilled == {"lost": 2}
    end(node, job)


def test_a_damaged_page_is_not_used(node: HiCacheNode, store: FaultyStore) -> None:
    store.damage(keys_of(PROMPT)[1], 3)
    job = node.come(PROMPT)
    ask(node)
    read(node)
    node.controller.turn()
    assert not node.controller.waits(job, 0.0) and fetched(job) == 1
    assert node.metrics.unfulfilled == {"lost": 3}
    end(node, job)


def test_an_l3_that_knows_nothing_of_the_prompt_does_not_hold_it_up(node: HiCacheNode) -> None:
    job = node.come([7, 8])
    ask(node)
    assert not node.controller.waits(job, 0.0) and job.ready_at is None
    assert node.metrics.unfulfilled == {}
    end(node, job)


def test_an_l3_that_fails_does_not_hold_a_prompt_up(node: HiCacheNode, store: FaultyStore) -> None:
    job = node.come(PROMPT)
    store.stall()
    ask(node)  # the guard gives the question up
    assert not node.controller.waits(job, 0.0) and fetched(job) == 0
    store.heal()
    end(node, job)


# --- slots ----------------------------------------------------------------------------------------


def test_pages_under_way_hold_their_share_of_l2_and_no_more(store: FaultyStore) -> None:
    node = make(store, num_slots=6, hicache_prefetch_share=0.5)
    job = node.come(PROMPT)
    ask(node)
    assert node.cache.host.num_fetching == 3
    assert node.metrics.unfulfilled == {"no_slot": 1}
    read(node)
    node.controller.turn()
    assert not node.controller.waits(job, 0.0) and fetched(job) == 3
    assert node.cache.host.num_fetching == 0
    end(node, job)
    node.close()


def test_a_prompt_waits_for_the_slots_that_another_ones_pages_hold(store: FaultyStore) -> None:
    for key in keys_of(PROMPT, "a"):
        store.put(key, object_of(key, "decode"))
    node = make(store, num_slots=8, hicache_prefetch_share=0.5)
    first = node.come(PROMPT)
    ask(node)
    second = node.come(PROMPT, tenant="a")
    ask(node)
    read(node)
    node.controller.turn()
    assert second.prefetch is not None and second.prefetch.slots == []
    assert node.metrics.unfulfilled == {}
    assert not node.controller.waits(first, 0.0) and fetched(first) == 4
    node.controller.turn()
    assert len(second.prefetch.slots) == 4
    read(node)
    node.controller.turn()
    assert not node.controller.waits(second, 0.0) and fetched(second) == 4
    end(node, first, second)
    node.close()


def test_a_prompt_whose_pages_find_no_slot_does_not_wait(store: FaultyStore) -> None:
    node = make(store, num_slots=3)
    assert node.pool.alloc(3) is not None
    job = node.come(PROMPT)
    ask(node)
    assert not node.controller.waits(job, 0.0) and fetched(job) == 0
    assert node.metrics.unfulfilled == {"no_slot": 4}
    node.close()


def test_a_tenants_quota_holds_for_pages_from_l3_too(store: FaultyStore) -> None:
    for key in keys_of(PROMPT, "a"):
        store.put(key, object_of(key, "decode"))
    node = make(store, hicache_tenant_quotas={"a": 2})
    job = node.come(PROMPT, tenant="a")
    ask(node)
    assert node.metrics.unfulfilled == {"no_slot": 2}
    end(node, job)
    node.close()


def test_slots_of_pages_that_did_not_come_are_free_again(
    node: HiCacheNode, store: FaultyStore
) -> None:
    job = node.come(PROMPT)
    ask(node)
    assert node.pool.num_free == 16
    store.pages.clear()
    read(node)
    node.controller.turn()
    assert node.pool.num_free == 20 and node.cache.host.num_fetching == 0
    end(node, job)


def test_what_a_stopped_prefetch_has_given_is_no_longer_on_its_way(node: HiCacheNode) -> None:
    job = node.come(PROMPT)
    ask(node)
    read(node, num_batches=1)
    assert node.cache.host.num_fetching == 4
    node.controller.waits(job, 1.0)
    node.controller.waits(job, 1e6)
    assert fetched(job) == 2 and node.cache.host.num_fetching == 2
    end(node, job)
    assert node.cache.host.num_fetching == 0


def test_a_slot_of_a_read_that_hangs_is_not_used_again_before_its_end(
    node: HiCacheNode, store: FaultyStore
) -> None:
    job = node.come(PROMPT)
    ask(node)
    store.stall()
    slots = node.prefetcher._reading[0].slots[:2]
    read(node)  # the guard gives it up
    node.controller.forget(job)
    node.settle()
    assert set(node.pool.alloc_up_to(20)).isdisjoint(slots)
    store.heal()
