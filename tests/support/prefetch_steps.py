"""A node whose L3 holds one prompt's pages, and the steps of reading them."""

from __future__ import annotations

from typing import Any

from faulty_store import FaultyStore
from hicache_node import HiCacheNode, keys_of, object_of

from kvloop.prefill.job import Job
from kvloop.shared_cache.tree_node import ABSENT, Tier

PROMPT = [1, 2, 3, 4]


def store_of_prompt() -> FaultyStore:
    """Decode wrote it."""
    store = FaultyStore()
    for key in keys_of(PROMPT):
        store.put(key, object_of(key, "decode"))
    return store


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
