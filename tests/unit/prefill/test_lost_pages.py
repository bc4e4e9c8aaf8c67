"""L1 and L2 lose pages that a queueing prompt counts on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faulty_store import FaultyStore
from hicache_node import HiCacheNode
from prefetch_steps import PROMPT, ask, end, fetched, make, read, store_of_prompt


@pytest.fixture
def store() -> FaultyStore:
    return store_of_prompt()


@pytest.fixture
def node(store: FaultyStore) -> Iterator[HiCacheNode]:
    node = make(store)
    yield node
    node.close()


def test_a_prompt_whose_pages_left_while_it_queued_reads_them_from_l3(node: HiCacheNode) -> None:
    node.serve(PROMPT)
    node.settle()
    job = node.come(PROMPT)
    assert job.prefetch is None, "L1 has them all"
    node.cache.flush()
    assert node.controller.waits(job, 0.0)
    ask(node)
    read(node)
    node.controller.turn()
    assert not node.controller.waits(job, 0.0) and fetched(job) == len(PROMPT)
    end(node, job)


def test_pages_read_behind_a_hole_are_given_back_and_read_again(node: HiCacheNode) -> None:
    node.serve(PROMPT[:2], cache="l3_only")
    node.settle()
    job = node.come(PROMPT)
    ask(node)
    read(node)
    node.controller.turn()
    node.cache.flush()
    assert node.controller.waits(job, 0.0) and job.fetched is None
    ask(node)
    read(node)
    node.controller.turn()
    assert not node.controller.waits(job, 0.0) and fetched(job) == len(PROMPT)
    end(node, job)
    node.cache.flush()
    assert node.cache.host.slots.num_free == node.cache.host.slots.num_slots


def test_a_prompt_that_lost_its_pages_often_enough_is_computed(node: HiCacheNode) -> None:
    node.serve(PROMPT)
    node.settle()
    job = node.come(PROMPT)
    job.num_look_ups = 4
    node.cache.flush()
    assert not node.controller.waits(job, 0.0)
    end(node, job)
