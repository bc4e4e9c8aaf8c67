"""Chains are whole: what of a prompt is not in L3 is mended before what follows it."""

from __future__ import annotations

from typing import Any

import pytest
from faulty_store import FaultyStore
from offload_node import OffloadNode, is_right
from offload_steps import PROMPT, MakeNode, keep, step

from kvloop.shared_cache.storage_errors import StorageUnavailable


@pytest.mark.parametrize(
    ("state", "reason"), [("storing", "failed"), ("stored", "evicted"), ("will_not", "policy")]
)
def test_prompt_pages_that_are_not_there_are_mended_and_counted_once_they_are_stored(
    node_of: MakeNode, store: FaultyStore, state: Any, reason: str
) -> None:
    node = node_of()
    owner = node.begin(PROMPT, states=state)
    assert owner is not None
    keep(store, node, owner.keys[:1])
    node.now += 2
    node.generate(owner, [8])
    node.turn()
    while node.looks.step():
        pass
    node.turn()
    assert node.holes(reason, True) == 0, "not before it is stored"
    node.end(owner)
    node.settle()
    assert set(owner.keys) == set(store.pages)
    assert is_right(store, owner.keys[1])
    assert node.holes(reason, True) == 1 and node.holes(reason, False) == 0


def test_nothing_is_asked_before_the_first_offload(node_of: MakeNode) -> None:
    node = node_of()
    owner = node.begin(PROMPT, states="will_not")
    assert owner is not None
    step(node)
    assert not node.looks.step() and node.offload.backlog == 0
    node.generate(owner, [8])
    node.turn()
    assert node.looks.step(), "one page of the answer is full"


def test_pages_that_prefill_is_storing_are_given_time_but_not_where_somebody_waits(
    node_of: MakeNode, store: FaultyStore
) -> None:
    for is_pressed in (False, True):
        node = node_of()
        store.pages.clear()
        owner = node.serve(PROMPT, 4, states="storing")
        node.turn()
        node.looks.step()
        if is_pressed:
            node.offload.hurry(0.0)
        step(node)
        assert (owner.keys[0] in {p.key for p in waiting(node)}) is is_pressed
        keep(store, node, owner.keys[:2])
        node.settle()
        assert node.holes("failed", True) == (2 if is_pressed else 0)
        assert node.all_is_free()


def waiting(node: OffloadNode) -> list[Any]:
    chains = node.offload._chains.values()
    return [page for c in chains for page in (*c.waiting, *c.staged, *c.moving) if page.hole]


def test_a_store_that_does_not_answer_is_asked_again(node_of: MakeNode, store: FaultyStore) -> None:
    node = node_of()
    owner = node.begin(PROMPT, states="will_not")
    assert owner is not None
    store.error = StorageUnavailable("broken by a test")
    node.generate(owner, [8])
    for _ in range(3):
        step(node)
        node.now += 0.1
    store.heal()
    assert node.guard.wait_attached(20)
    node.end(owner)
    node.settle()
    assert set(owner.keys) == set(store.pages) and node.holes("policy", True) == 2


def test_another_store_is_given_all_that_a_running_request_holds(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of()
    owner = node.begin(PROMPT, states="will_not")
    assert owner is not None
    node.generate(owner, [8] * 4)
    node.settle(6)
    other = FaultyStore()
    node.attach(other)
    node.generate(owner, [8] * 2)
    node.settle(6)
    assert set(other.pages) == set(owner.keys) and all(is_right(other, k) for k in owner.keys)


def test_another_store_is_given_what_was_on_its_way_once(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of()
    owner = node.begin(PROMPT, states="will_not")
    assert owner is not None
    node.generate(owner, [8])
    step(node)
    step(node)
    assert node.offload.backlog == 3 and len(store.pages) < 3
    before = node.counted("kvloop_offload_seconds_count")
    node.attach(FaultyStore())
    node.end(owner)
    node.settle()
    assert node.counted("kvloop_offload_seconds_count") - before == 3
