"""The controller of the three tiers: what it tells L3 of, and its live settings."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from faulty_store import FaultyStore
from hicache_node import HiCacheNode, keys_of

from kvloop.prefill import cache_controller
from kvloop.prefill.cache_controller import hicache_config, prefetch_limits
from kvloop.shared_cache.tree_node import Tier


@pytest.fixture
def node(store: FaultyStore) -> Iterator[HiCacheNode]:
    node = HiCacheNode(store, num_pages=40, num_slots=40)
    yield node
    node.close()


def test_the_nodes_flags_are_hicaches_settings() -> None:
    flags = {
        "hicache_write_policy": "write_back",
        "hicache_write_through_threshold": 5,
        "radix_eviction_policy": "lfu",
        "hicache_eviction_policy": "priority",
        "hicache_prefetch_share": 0.25,
        "hicache_tenant_quotas": {"a": 3},
    }
    config = hicache_config(HiCacheNode(None, flags=flags).config)
    assert (config.write_policy, config.write_through_threshold) == ("write_back", 5)
    assert (config.device_policy, config.host_policy) == ("lfu", "priority")
    assert (config.prefetch_share, config.tenant_quotas) == (0.25, {"a": 3})


def test_the_nodes_flags_are_the_prefetchs_limits() -> None:
    flags = {
        "hicache_storage_prefetch_policy": "timeout",
        "hicache_prefetch_threshold": 7,
        "hicache_prefetch_timeout_base": 0.3,
        "hicache_prefetch_timeout_per_ki_token": 0.2,
        "hicache_prefetch_cap_s": 9.0,
    }
    limits = prefetch_limits(HiCacheNode(None, flags=flags).config)
    assert (limits.policy, limits.threshold, limits.cap_s) == ("timeout", 7, 9.0)
    assert (limits.timeout_base, limits.timeout_per_ki_token) == (0.3, 0.2)


def test_a_setting_that_is_not_named_stays_as_it_is(node: HiCacheNode) -> None:
    controller = node.controller
    before = controller.limits
    controller.set_policies(None, None)
    controller.set_prefetch_limits(None, None, None)
    assert controller.limits == before
    controller.set_prefetch_limits(0, None, 0.0)
    assert (controller.limits.threshold, controller.limits.timeout_per_ki_token) == (0, 0.0)
    assert controller.limits.timeout_base == before.timeout_base


def test_the_policies_in_force_are_told(node: HiCacheNode) -> None:
    node.controller.set_policies("wait_complete", "write_back")
    assert node.controller.policies() == {
        "hicache_storage_prefetch_policy": "wait_complete",
        "hicache_write_policy": "write_back",
    }


def test_no_more_than_a_backlog_of_pages_is_with_the_writer_at_once(
    node: HiCacheNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_controller, "_MAX_BACKLOG_PAGES", 4)
    for first in range(5):
        node.serve([first, 8])
        node.mover.finish()
        node.controller.turn()
    assert node.controller.backlog == 4
    node.settle()
    assert node.controller.backlog == 0 and node.tree.num_pages(Tier.STORAGE) == 10


def test_a_store_that_was_cleared_gets_all_of_l2_again(
    node: HiCacheNode, store: FaultyStore
) -> None:
    node.serve([1, 2, 3])
    node.settle()
    assert node.guard.clear() == "cleared" and not set(keys_of([1, 2, 3])) & set(store.pages)
    node.settle()
    assert set(keys_of([1, 2, 3])) <= set(store.pages)


def test_a_detached_node_goes_on_with_l1_and_l2(node: HiCacheNode, store: FaultyStore) -> None:
    node.guard.detach()
    node.serve([1, 2, 3])
    node.settle()
    node.controller.turn()
    assert node.tree.num_pages(Tier.HOST) == 3 and store.saved == set()
    assert node.cache.num_found(keys_of([1, 2, 3])) == 3


def test_pages_queued_for_an_l3_that_is_detached_come_back_to_l2(node: HiCacheNode) -> None:
    node.serve([1, 2, 3])
    node.mover.finish()
    node.controller.turn()
    assert node.controller.backlog == 3
    node.guard.detach()
    node.settle()
    assert node.controller.backlog == 0
    assert node.cache.marks.states(keys_of([1, 2, 3])) == ["will_not"] * 3
    node.cache.flush()
    assert node.pool.num_free == 40


def test_a_restarted_node_finds_in_l3_what_the_one_before_had_stored(
    node: HiCacheNode, store: FaultyStore
) -> None:
    node.serve([1, 2, 3])
    node.settle()
    node.close()
    after = HiCacheNode(store)
    job = after.serve([1, 2, 3])
    assert job.lease is not None and job.lease.sources == ["prefill"] * 3
    after.close()


def test_a_page_torn_by_a_crash_is_computed_again_and_replaced(
    node: HiCacheNode, store: FaultyStore
) -> None:
    node.serve([1, 2, 3])
    node.settle()
    node.close()
    torn = keys_of([1, 2, 3])[1]
    store.damage(torn, 5)
    after = HiCacheNode(store)
    job = after.serve([1, 2, 3])
    assert job.lease is not None and job.lease.sources == ["prefill"]
    after.settle()
    after.cache.flush()
    again = after.serve([1, 2, 3])
    assert again.lease is not None and again.lease.sources == ["prefill"] * 3
    after.close()


def test_moves_are_counted_with_their_results(node: HiCacheNode) -> None:
    node.serve([1, 2, 3])
    node.settle()
    node.cache.flush()
    node.serve([1, 2, 3])
    node.settle()
    assert node.metrics.pages == {("backup", "done"): 3, ("load_back", "done"): 3}


def test_what_l2_took_while_l3_was_out_of_order_goes_there_when_it_works_again(
    node: HiCacheNode, store: FaultyStore
) -> None:
    node.serve([1, 2])
    node.settle()
    store.stall()
    node.serve([3, 4])
    node.settle()  # the write is given up, and the breaker opens
    node.serve([5, 6])
    node.settle()
    store.heal()
    assert node.guard.wait_attached(20) and node.store.generation == node.controller._generation
    node.settle()
    assert {*keys_of([3, 4]), *keys_of([5, 6])} <= store.saved


def test_closing_stores_what_is_still_being_copied_and_more_than_the_writer_takes_at_once(
    node: HiCacheNode, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_controller, "_MAX_BACKLOG_PAGES", 1)
    pages = [[i, i + 50, i + 100] for i in range(1, 5)]
    for prompt in pages:
        node.serve(prompt)
    assert node.mover.under_way() and not store.pages

    def nap(seconds: float) -> None:
        node.mover.finish()
        node.writer.save_next()

    own_time = SimpleNamespace(sleep=nap, monotonic=time.monotonic)
    monkeypatch.setattr(cache_controller, "time", own_time)
    node.controller.close(30.0)
    assert set(store.pages) == {key for prompt in pages for key in keys_of(prompt)}


def test_closing_ends_at_its_deadline(
    node: HiCacheNode, store: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.serve([1, 2, 3])
    clock = iter(range(1000))
    own_time = SimpleNamespace(sleep=lambda seconds: None, monotonic=lambda: float(next(clock)))
    monkeypatch.setattr(cache_controller, "time", own_time)
    node.writer.close = lambda timeout_s: None  # type: ignore[method-assign]
    node.controller.close(20.0)
    assert 20 < next(clock) < 25 and not store.pages
