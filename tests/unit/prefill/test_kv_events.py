"""What a prefill node's tiers tell of a prompt, by way of the real controller."""

from __future__ import annotations

from faulty_store import FaultyStore
from hicache_node import PAGE, HiCacheNode, keys_of, object_of

from kvloop.engine.event_recorder import Cleared, Record, Removed, Stored
from kvloop.shared_cache.keys import cache_seed
from kvloop.shared_cache.tree_node import Tier

PROMPT, TOKENS = [1, 2, 3], [1, 1, 2, 2, 3, 3]
KEYS = keys_of(PROMPT, "a")
SEED = cache_seed("a", None)


def told(node: HiCacheNode) -> list[Record]:
    return node.events.take()


def stored(tier: Tier, first: int = 0) -> Stored:
    parent = KEYS[first - 1] if first else None
    tokens = TOKENS[first * PAGE :]
    return Stored(tier=tier, keys=KEYS[first:], parent=parent, tokens=tokens, seed=SEED)


def test_a_computed_prompt_is_in_both_tiers_with_its_tokens_and_its_tenants_seed(
    node: HiCacheNode,
) -> None:
    node.serve(PROMPT, tenant="a")
    assert told(node) == [stored(Tier.DEVICE), stored(Tier.HOST)]
    node.settle()
    node.serve(PROMPT, tenant="a")
    assert told(node) == []


def test_pages_that_come_from_l3_are_told_with_their_tokens(
    node: HiCacheNode, store: FaultyStore
) -> None:
    for key in KEYS:
        store.put(key, object_of(key, "decode"))
    job = node.come(PROMPT, tenant="a")
    node.settle()
    assert node.cache.num_found(KEYS) == 3
    assert told(node) == [stored(Tier.HOST)]
    node.controller.waits(job, 0.0)
    node.controller.forget(job)


def test_what_leaves_is_told_and_a_flush_clears(node: HiCacheNode) -> None:
    node.serve(PROMPT, tenant="a")
    node.settle()
    told(node)
    node.tree.evict(Tier.DEVICE, 1)
    assert told(node) == [Removed(tier=Tier.DEVICE, keys=KEYS[2:])]
    node.cache.flush()
    assert told(node) == [Cleared()]


def test_a_request_without_cache_is_not_told_of(node: HiCacheNode) -> None:
    node.serve(PROMPT, cache="off")
    node.settle()
    assert told(node) == []


def test_a_jobs_tokens_are_forgotten_with_it(node: HiCacheNode) -> None:
    job = node.come(PROMPT)
    assert len(node.events._runs) == 1
    node.controller.forget(job)
    assert not node.events._runs
