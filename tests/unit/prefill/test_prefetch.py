"""Reading a prompt's pages from L3 while it queues, one thread step after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from faulty_store import FaultyStore
from hicache_node import HiCacheNode, holds, keys_of, object_of

from kvloop.prefill.job import Job
from kvloop.shared_cache.prefetch_policy import Rates
from kvloop.shared_cache.tree_node import ABSENT, Tier

PROMPT = [1, 2, 3, 4]


@pytest.fixture
def store() -> FaultyStore:
    store = FaultyStore()
    for key in keys_of(PROMPT):
        store.put(key, object_of(key, "decode"))
    return store


@pytest.fixture
def node(store: FaultyStore) -> Iterator[HiCacheNode]:
    node = make(store)
    yield node
    node.close()


def make(store: FaultyStore, *, num_slots: int = 20, **flags: Any) -> HiCacheNode:
    return HiCacheNode(store, num_pages=12, num_slots=num_slots, flags=flags)


def ask(node: HiCacheNode) -> None:
    """L3 says what it has, and the pages get slots."""
    node.gate.step(0)
    node.controller.turn()


def read(node: HiCacheNode, num_batches: int = 9) -> None:
    """Batches of two pages are read; a step brings the thread to a read, another behind it."""
    for _ in range(2 * num_batches):
        node.gate.step(0)
    node.gate.step(0)


def fetched(job: Job) -> int:
    return len(job.fetched.slots) if job.fetched is not None else 0


def in_host(node: HiCacheNode, pages: list[int] = PROMPT) -> int:
    return sum(slot != ABSENT for slot in node.tree.values(Tier.HOST, keys_of(pages)))


def end(node: HiCacheNode, *jobs: Job) -> None:
    """Afterwards nothing is left in use."""
    for job in jobs:
        node.controller.forget(job)
    node.settle()
    node.cache.flush()
    assert node.pool.num_free == node.pool.num_slots


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


# --- waiting --------------------------------------------------------------------------------------


class SlowReads(Rates):
    """Reading is slower than computing."""

    def __init__(self) -> None:
        super().__init__()
        self.compute_s_per_token, self.fetch_s_per_page = 0.001, 1.0

    def fetched(self, num_pages: int, seconds: float) -> None: ...


def late(node: HiCacheNode, waited_s: float, **fields: Any) -> Job:
    """A prompt that has been waiting for two of its four pages for so long."""
    job = node.come(PROMPT, **fields)
    ask(node)
    read(node, num_batches=1)
    job.ready_at = 100.0
    node.controller.waits(job, 100.0 + waited_s)
    return job


@pytest.mark.parametrize(
    ("flags", "waited_s", "reason"),
    [
        # Two pages of two tokens have earned 4 s, and the others may be late by 0.1 s.
        ({}, 4.0, None),
        ({}, 4.2, "estimate"),
        ({"hicache_storage_prefetch_policy": "timeout"}, 0.9, None),
        ({"hicache_storage_prefetch_policy": "timeout"}, 1.1, "timeout"),
        (
            {
                "hicache_storage_prefetch_policy": "timeout",
                "hicache_prefetch_timeout_base": 2.0,
                "hicache_prefetch_timeout_per_ki_token": 128.0,  # one second for eight tokens
            },
            2.9,
            None,
        ),
        (
            {
                "hicache_storage_prefetch_policy": "timeout",
                "hicache_prefetch_timeout_base": 2.0,
                "hicache_prefetch_timeout_per_ki_token": 128.0,
            },
            3.1,
            "timeout",
        ),
        ({"hicache_storage_prefetch_policy": "wait_complete"}, 29.0, None),
        ({"hicache_storage_prefetch_policy": "wait_complete"}, 31.0, "cap"),
        (
            {
                "hicache_storage_prefetch_policy": "wait_complete",
                "hicache_prefetch_cap_s": 50.0,
            },
            49.0,
            None,
        ),
    ],
)
def test_a_policy_says_how_long_a_prompt_waits_and_by_what_reason_it_goes_on(
    store: FaultyStore, flags: dict[str, Any], waited_s: float, reason: str | None
) -> None:
    node = make(store, **flags)
    job = late(node, waited_s)
    assert node.metrics.unfulfilled == ({reason: 2} if reason else {})
    assert (job.prefetch is None) is bool(reason)
    end(node, job)
    node.close()


def test_best_effort_does_not_wait_at_all_where_reading_is_slower(store: FaultyStore) -> None:
    node = HiCacheNode(store, num_pages=12, num_slots=20, rates=SlowReads)
    late(node, 0.0)
    assert node.metrics.unfulfilled == {"estimate": 2}
    node.close()


def test_a_request_for_l3_only_waits_whatever_the_estimate(store: FaultyStore) -> None:
    node = HiCacheNode(store, num_pages=12, num_slots=20, rates=SlowReads)
    job = late(node, 29.0, cache="l3_only")
    assert job.prefetch is not None and node.metrics.unfulfilled == {}
    end(node, job)
    node.close()


def test_the_wait_counts_from_when_the_prompt_could_be_computed(node: HiCacheNode) -> None:
    job = node.come(PROMPT)  # and queues for long
    ask(node)
    assert node.controller.waits(job, 5000.0) and job.ready_at == 5000.0
    assert node.controller.waits(job, 5000.05)
    end(node, job)


def test_pages_of_a_cancelled_request_are_counted(node: HiCacheNode) -> None:
    job = node.come(PROMPT)
    ask(node)
    read(node, num_batches=1)
    end(node, job)
    assert node.metrics.unfulfilled == {"cancelled": 2}


def test_limits_change_while_requests_wait(store: FaultyStore) -> None:
    node = make(store, hicache_storage_prefetch_policy="wait_complete")
    job = late(node, 2.0)
    assert job.prefetch is not None
    node.controller.set_policies("timeout", None)
    node.controller.set_prefetch_limits(None, 1.5, 0.0)
    assert not node.controller.waits(job, 102.0)
    assert node.metrics.unfulfilled == {"timeout": 2}
    end(node, job)
    node.close()
