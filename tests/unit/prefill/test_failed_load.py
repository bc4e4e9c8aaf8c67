"""A step whose pages could not be loaded back computes nothing with what lies there instead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hicache_node import PAGE, HiCacheNode

from kvloop.prefill.job import Job
from kvloop.prefill.scheduler import PrefillScheduler
from kvloop.shared_cache.errors import TransferError
from kvloop.shared_cache.tree_node import Tier


def placed_on_the_host(node: HiCacheNode) -> Job:
    """A prompt whose pages are on their way up from L2."""
    node.serve([1, 2])
    node.settle()
    node.cache._device.free(node.tree.evict(Tier.DEVICE, 2))
    job = node.come([1, 2])
    assert node.controller.place(job)
    return job


def compute(job: Job) -> None:
    """One step of the scheduler's, with a model of one layer that waits for its pages."""

    def forward(batch: Any, kv: Any, on_layer: Any, before_layer: Any) -> Any:
        before_layer(0)
        raise AssertionError("computed without its pages")

    parts = SimpleNamespace(
        kv=SimpleNamespace(device=torch.device("cpu")), model=SimpleNamespace(forward=forward)
    )
    scheduler: Any = SimpleNamespace(
        _page_size=PAGE, _parts=parts, _push_layer=lambda chosen, layer: None
    )
    PrefillScheduler._compute(scheduler, [(job, job.num_tokens - job.num_done)])


def test_a_load_that_failed_before_the_step_fails_the_step() -> None:
    node = HiCacheNode(None)
    job = placed_on_the_host(node)
    (move,) = node.mover.under_way()
    move.fail()
    with pytest.raises(TransferError):
        compute(job)
    node.controller.forget(job)
    node.close()


def test_a_load_that_cannot_even_begin_fails_the_step_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = HiCacheNode(None)

    def load_back(pages: object, slots: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(node.mover, "load_back", load_back)
    job = placed_on_the_host(node)
    with pytest.raises(RuntimeError):
        compute(job)
    node.controller.forget(job)
    node.settle()
    node.cache.flush()
    assert node.pool.num_free == node.pool.num_slots and node.cache.num_available == 8
    node.close()
