"""How long a prompt that could be computed waits for its pages, by policy; no clock runs here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from faulty_store import FaultyStore
from hicache_node import HiCacheNode
from prefetch_steps import PROMPT, ask, end, make, read, store_of_prompt

from kvloop.prefill.job import Job
from kvloop.shared_cache.prefetch_policy import Rates


@pytest.fixture
def store() -> FaultyStore:
    return store_of_prompt()


@pytest.fixture
def node(store: FaultyStore) -> Iterator[HiCacheNode]:
    node = make(store)
    yield node
    node.close()


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
