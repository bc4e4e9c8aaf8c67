"""A prompt that begins where a turn has ended: its computing starts inside a page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from faulty_store import FaultyStore
from hicache_node import NEXT, PAGE, HiCacheNode, content_of, keys_of, store_tail
from prefetch_steps import PROMPT, ask, end, make, store_of_prompt

from kvloop.prefill.job import Job
from kvloop.shared_cache.hicache_names import PrefetchPolicy
from kvloop.shared_cache.page_object import Fault
from kvloop.shared_cache.tail import encode_record, record_name, tail_key
from kvloop.shared_cache.tree_node import Tier


@pytest.fixture
def store() -> FaultyStore:
    return store_of_prompt()


@pytest.fixture
def node(store: FaultyStore) -> Iterator[HiCacheNode]:
    node = make(store, tail_objects=True)
    yield node
    node.close()


def come(node: HiCacheNode, pages: list[int] = PROMPT, **fields: Any) -> Job:
    """A prompt whose last page is full, and begins with the tail's token."""
    return node.come(pages, **{"num_more": PAGE, **fields})


def wait(node: HiCacheNode, job: Job) -> None:
    """Until all is there that it waits for."""
    while node.controller.waits(job, 0.0):
        assert node.gate.step(0)
        node.controller.turn()


def placed(node: HiCacheNode, pages: list[int] = PROMPT, **fields: Any) -> Job:
    job = come(node, pages, **fields)
    wait(node, job)
    assert node.controller.place(job)
    return job


def settled(node: HiCacheNode, pages: list[int] = PROMPT, **fields: Any) -> Job:
    job = placed(node, pages, **fields)
    node.mover.finish()
    assert node.controller.tails.has_settled(job)
    return job


def test_computing_begins_behind_the_tail_which_is_in_the_prompts_next_page(
    node: HiCacheNode, store: FaultyStore
) -> None:
    key = store_tail(store, keys_of(PROMPT)[-1])
    job = settled(node)
    assert job.lease is not None and job.lease.tail is not None
    assert job.num_done == 4 * PAGE + 1 and len(job.lease.sources) == 4
    assert (job.lease.tail.writer, job.lease.tail.num_tokens) == ("decode", 1)
    assert node.mover.device[job.lease.pages[4]].tobytes() == content_of(key).tobytes()
    assert node.metrics.tails == {"hit": 1}
    end(node, job)


def test_nothing_is_computed_in_the_page_before_the_tail_is_there(
    node: HiCacheNode, store: FaultyStore
) -> None:
    store_tail(store, keys_of(PROMPT)[-1])
    job = placed(node)
    assert job.lease is not None and job.lease.tail_load is not None
    assert not node.controller.tails.has_settled(job) and job.num_done == 4 * PAGE
    tail, rest = node.mover.under_way()
    assert tail.pages == [job.lease.pages[4]], "it is loaded first"
    tail.finish()
    assert node.controller.tails.has_settled(job) and job.num_done == 4 * PAGE + 1
    assert not rest.is_done
    assert node.controller.tails.has_settled(job) and job.num_done == 4 * PAGE + 1
    end(node, job)


def test_a_tail_behind_pages_that_l1_holds_is_found(node: HiCacheNode, store: FaultyStore) -> None:
    node.serve(PROMPT)
    store_tail(store, keys_of(PROMPT)[-1])
    job = settled(node)
    assert job.lease is not None and job.lease.sources == ["device"] * 4
    assert job.num_done == 4 * PAGE + 1
    end(node, job)


def test_a_tail_behind_the_first_pages_of_a_longer_prompt_is_found(
    node: HiCacheNode, store: FaultyStore
) -> None:
    store_tail(store, keys_of(PROMPT)[-1], token=5)
    job = settled(node, [*PROMPT, 5, 6])
    assert job.lease is not None and len(job.lease.sources) == 4
    assert job.num_done == 4 * PAGE + 1
    end(node, job)


def test_l3_only_takes_tails_and_reads_no_other_tier(node: HiCacheNode, store: FaultyStore) -> None:
    node.serve(PROMPT)
    store_tail(store, keys_of(PROMPT)[-1])
    job = settled(node, cache="l3_only")
    assert job.lease is not None and job.lease.sources == ["decode"] * 4
    assert job.num_done == 4 * PAGE + 1
    end(node, job)


def test_a_tail_at_a_chains_start_is_found_by_a_prompt_shorter_than_two_pages(
    node: HiCacheNode, store: FaultyStore
) -> None:
    store_tail(store, None, token=7)
    job = settled(node, [7], num_more=1)
    assert job.num_done == 1
    end(node, job)


def test_a_tenants_chain_starts_with_its_own_tails(node: HiCacheNode, store: FaultyStore) -> None:
    other = come(node, [7], num_more=1, tenant="acme")
    assert other.seed is not None
    store_tail(store, None, token=7)
    store_tail(store, other.seed, token=7)
    wait(node, other)
    assert other.tail is not None and other.tail.tail is not None
    assert other.tail.tail.key == tail_key(other.seed, [7])
    end(node, other)


@pytest.mark.parametrize("flags", [{}, {"tail_objects": False}])
def test_without_the_flag_no_tail_is_looked_for(store: FaultyStore, flags: dict[str, Any]) -> None:
    node = make(store, **flags)
    store_tail(store, keys_of(PROMPT)[-1])
    job = settled(node)
    assert job.num_done == 4 * PAGE and job.tail is None and not node.metrics.tails
    end(node, job)
    node.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"cache": "off"},
        {"pages": [8, 9]},  # nothing of it is known
        {"num_more": 1},  # the one token behind its pages is the last, which is computed
    ],
)
def test_a_prompt_that_can_use_no_tail_asks_for_none(
    node: HiCacheNode, fields: dict[str, Any]
) -> None:
    with patch.object(node.store, "get_small", side_effect=AssertionError):
        job = placed(node, **fields)
    assert job.tail is None and not node.metrics.tails
    end(node, job)


def test_no_tail_is_looked_for_while_l3_is_detached(node: HiCacheNode, store: FaultyStore) -> None:
    node.serve(PROMPT)
    node.guard.detach()
    job = come(node)
    assert job.tail is None and not node.controller.waits(job, 0.0)
    end(node, job)


def test_of_two_answers_each_prompt_finds_its_own(node: HiCacheNode, store: FaultyStore) -> None:
    parent = keys_of(PROMPT)[-1]
    keys = [store_tail(store, parent, token) for token in (5, 6)]
    for token, key in zip((5, 6), keys, strict=True):
        job = settled(node, [*PROMPT, token])
        assert job.num_done == 4 * PAGE + 1 and job.lease is not None
        assert node.mover.device[job.lease.pages[4]].tobytes() == content_of(key).tobytes()
        end(node, job)


def test_another_branchs_tail_is_a_miss(node: HiCacheNode, store: FaultyStore) -> None:
    store_tail(store, keys_of(PROMPT)[-1], token=5)
    job = settled(node)
    assert job.num_done == 4 * PAGE and node.metrics.tails == {"miss": 1}
    end(node, job)


def test_a_damaged_tail_is_a_miss_and_a_counted_fault(
    node: HiCacheNode, store: FaultyStore
) -> None:
    key = store_tail(store, keys_of(PROMPT)[-1])
    store.damage(key, 5)
    job = settled(node)
    assert job.num_done == 4 * PAGE and node.metrics.tails == {"miss": 1}
    assert node.store.counters.snapshot().faults == {Fault.PAYLOAD.value: 1}
    assert key not in store.pages
    end(node, job)


def test_a_tail_that_is_gone_is_a_miss(node: HiCacheNode, store: FaultyStore) -> None:
    del store.pages[store_tail(store, keys_of(PROMPT)[-1])]
    job = settled(node)
    assert job.num_done == 4 * PAGE and node.metrics.tails == {"miss": 1}
    end(node, job)


def test_a_record_that_cannot_be_read_is_a_fault(node: HiCacheNode, store: FaultyStore) -> None:
    parent = keys_of(PROMPT)[-1]
    store.records[record_name(parent)] = encode_record([])[:-1]
    job = settled(node)
    assert job.num_done == 4 * PAGE and node.metrics.tails == {"fault": 1}
    end(node, job)


@pytest.mark.parametrize("call", ["get_small", "load"])
def test_looking_that_ends_in_an_error_is_a_fault_and_leaves_nothing_behind(
    node: HiCacheNode, store: FaultyStore, call: str
) -> None:
    node.serve(PROMPT)
    store_tail(store, keys_of(PROMPT)[-1])
    with patch.object(node.store, call, side_effect=RuntimeError("a bug")):
        job = settled(node)
    assert job.num_done == 4 * PAGE and node.metrics.tails == {"fault": 1}
    assert node.cache.host.num_held == 0
    end(node, job)


def test_a_tail_whose_load_fails_is_computed(node: HiCacheNode, store: FaultyStore) -> None:
    store_tail(store, keys_of(PROMPT)[-1])
    job = placed(node)
    node.mover.under_way()[0].fail()
    assert node.controller.tails.has_settled(job)
    assert job.num_done == 4 * PAGE and node.metrics.tails == {"fault": 1}
    assert job.lease is not None and job.lease.tail is None
    end(node, job)


def test_pages_of_a_job_that_ends_early_stay_taken_while_its_tail_is_loaded(
    node: HiCacheNode, store: FaultyStore
) -> None:
    store_tail(store, keys_of(PROMPT)[-1])
    job = placed(node)
    tail, rest = node.mover.under_way()
    rest.finish()
    free = node.cache.num_available
    node.controller.forget(job)
    assert node.metrics.tails == {"unused": 1}
    node.controller.turn()
    assert node.cache.num_available == free
    tail.finish()
    node.controller.turn()
    assert node.cache.num_available == free + 5
    end(node)


@pytest.mark.parametrize(
    ("policy", "waited_s", "waits"),
    [
        # One more page than the four that came: those have earned 8 s, and it may be 0.1 s late.
        ("best_effort", 8.0, True),
        ("best_effort", 8.2, False),
        ("timeout", 0.9, True),
        ("timeout", 1.1, False),
        ("wait_complete", 29.0, True),
        ("wait_complete", 31.0, False),
    ],
)
def test_a_tail_is_waited_for_as_one_more_page_would_be(
    store: FaultyStore, policy: PrefetchPolicy, waited_s: float, waits: bool
) -> None:
    store_tail(store, keys_of(PROMPT)[-1])
    node = make(store, tail_objects=True, hicache_storage_prefetch_policy=policy)
    job = come(node)
    job.ready_at = 100.0
    ask(node)
    prefetch = job.prefetch
    assert node.controller.waits(job, 100.0) and job.tail is not None and prefetch is not None
    while not prefetch.is_done:
        node.gate.step(0)
        node.controller.turn()
    assert node.controller.waits(job, 100.0 + waited_s) == waits
    assert node.controller.place(job)
    assert job.lease is not None and job.lease.tail is None
    node.settle()
    assert node.metrics.tails == {"unused": 1}
    end(node, job)
    node.close()


def test_a_prompts_own_tail_takes_no_slot_that_its_pages_wait_for(store: FaultyStore) -> None:
    node = make(store, num_slots=4, tail_objects=True, hicache_prefetch_share=1.0)
    store_tail(store, keys_of(PROMPT)[-1])
    (slot,) = node.cache.host.take_for_fetch(1, "")  # another prompt's, for a while
    job = come(node)
    ask(node)
    assert node.controller.waits(job, 0.0) and job.tail is None
    node.cache.host.landed(1, "")
    node.cache.host.handed_over(1)
    node.cache.host.slots.free([slot])
    node.controller.turn()
    wait(node, job)
    assert node.controller.place(job) and job.lease is not None
    assert job.lease.sources == ["decode"] * 4 and job.lease.tail is None
    end(node, job)
    node.close()


def test_a_prompt_goes_on_without_a_tail_for_which_l2_has_no_room(
    node: HiCacheNode, store: FaultyStore
) -> None:
    node.serve(PROMPT)
    store_tail(store, keys_of(PROMPT)[-1])
    with patch.object(node.cache.host, "take_for_fetch", return_value=[]):
        job = settled(node)
    assert job.num_done == 4 * PAGE and node.metrics.tails == {"unused": 1}
    end(node, job)


def test_a_tail_is_of_no_use_where_its_page_was_computed_meanwhile(
    node: HiCacheNode, store: FaultyStore
) -> None:
    store_tail(store, keys_of(PROMPT)[-1], token=5)
    job = come(node, [*PROMPT, 5])
    wait(node, job)
    other = settled(node, [*PROMPT, 5])
    node.compute(other)
    node.controller.publish(other)
    assert node.controller.place(job)
    assert job.lease is not None and len(job.lease.sources) == 5 and job.lease.tail is None
    assert node.controller.tails.has_settled(job) and node.metrics.tails["unused"] == 1
    end(node, job, other)


def test_a_tail_of_a_job_that_was_cancelled_is_given_back(
    node: HiCacheNode, store: FaultyStore
) -> None:
    store_tail(store, keys_of(PROMPT)[-1])
    job = come(node)
    wait(node, job)
    end(node, job)
    assert node.metrics.tails == {"unused": 1} and node.cache.host.num_held == 0


def test_a_page_that_began_with_a_tail_is_cached_whole_under_its_own_key(
    node: HiCacheNode, store: FaultyStore
) -> None:
    store_tail(store, keys_of(PROMPT)[-1])
    job = settled(node)
    node.compute(job)
    node.controller.publish(job)
    assert node.tree.num_pages(Tier.DEVICE) == 5
    node.settle()
    assert keys_of([*PROMPT, NEXT])[-1] in store.saved
    end(node, job)
