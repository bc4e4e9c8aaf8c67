"""Pages are offered again after pauses until a deadline; what is given up is counted by why."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from faulty_store import FaultyStore
from offload_node import SHORT_S, OffloadNode
from offload_steps import PROMPT, MakeNode, keep, step, step_copies


def test_a_page_that_found_no_room_is_offered_again_after_growing_pauses(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of(offload_retries=4)
    owner = node.serve(PROMPT, 2, states="stored")
    keep(store, node, owner.keys[:2])
    store.has_room = False
    offers: list[float] = []
    for _ in range(60):
        node.turn()
        node.mover.finish()
        node.looks.step()
        if node.writes.step():
            offers.append(node.now)
        node.now += 0.05
        store.has_room = len(offers) >= 3
    pauses = [later - sooner for sooner, later in pairwise(offers)]
    assert len(offers) == 4 and pauses == sorted(pauses) and pauses[0] >= 0.1
    assert pauses[-1] >= 2 * pauses[0] - 0.05
    assert node.counted("kvloop_offload_retries_total") == 3
    assert set(store.pages) == set(owner.keys) and node.all_is_free()


def test_a_page_that_is_never_taken_ends_its_chain_and_no_other(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of(offload_retries=2)
    owner = node.begin(PROMPT)
    assert owner is not None
    keep(store, node, owner.keys)
    store.has_room = False
    node.generate(owner, [8])
    node.settle(20)
    store.has_room = True
    assert node.counted("kvloop_offload_retries_total") == 2
    assert node.holes("failed", False) == 1
    other = node.serve([9] * 4, 3)
    node.generate(owner, [8] * 4)
    node.end(owner)
    node.settle()
    assert set(store.pages) == {*owner.keys[:2], *other.keys}
    assert node.holes("failed", False) == 3, "each page of the rest, once"
    assert node.counted("kvloop_offload_skipped_pages_total", reason="behind_hole") == 2
    assert node.counted("kvloop_offload_skipped_bytes_total", reason="behind_hole") > 0


@pytest.mark.parametrize("is_copying", [True, False])
def test_what_moves_while_its_chain_breaks_before_it_is_given_up_when_it_stops(
    node_of: MakeNode, store: FaultyStore, is_copying: bool
) -> None:
    node = node_of(offload_retries=0)
    owner = node.begin([1])
    assert owner is not None
    store.has_room = False
    node.generate(owner, [8])
    step_copies(node)
    node.generate(owner, [8, 8])
    node.turn()
    if not is_copying:
        node.mover.finish()
        node.turn()
    assert node.writes.step()
    node.turn()
    assert node.holes("failed", False) == 1, "the other one is not back yet"
    step(node)
    store.has_room = True
    node.end(owner)
    node.settle()
    assert not store.pages and node.holes("failed", False) == 2 and node.all_is_free()


@pytest.mark.parametrize(
    ("state", "reason"), [("storing", "failed"), ("stored", "evicted"), ("will_not", "policy")]
)
def test_a_hole_that_stays_is_counted_as_what_it_was_with_all_behind_it(
    node_of: MakeNode, store: FaultyStore, state: Any, reason: str
) -> None:
    node = node_of(offload_retries=1)
    store.has_room = False
    owner = node.begin(PROMPT, states=state)
    assert owner is not None
    node.end(owner)
    node.settle()
    assert node.holes(reason, False) == len(owner.keys) == 2 and not store.pages
    assert node.holes(reason, True) == 0
    assert node.counted("kvloop_offload_skipped_pages_total", reason="behind_hole") == 1
    assert node.all_is_free()


def test_a_chain_that_waits_for_its_next_attempt_holds_up_no_other(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of()
    store.has_room = False
    failed = node.serve([1, 2], 2)
    for _ in range(4):
        step(node)
    store.has_room = True
    other = node.serve([3, 4], 2)
    for _ in range(4):
        step(node)
    assert set(store.pages) == set(other.keys) and failed.keys[0] not in store.pages
    node.settle()
    assert set(store.pages) == {*failed.keys, *other.keys}


def test_at_the_deadline_after_the_requests_end_all_is_given_up(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of(offload_deadline_s=3.0, offload_retries=1000)
    store.has_room = False
    owner = node.serve(PROMPT, 6, states="will_not")
    node.settle(4, pause_s=0.5)
    assert node.offload.backlog == len(owner.keys) == 5
    node.settle(8, pause_s=0.5)
    assert node.offload.backlog == 0 and node.holes("deadline", False) == 5
    assert not node.counted("kvloop_offload_skipped_pages_total", reason="behind_hole")
    assert node.all_is_free()


def test_the_deadline_holds_for_prompts_in_doubt_whose_answers_filled_no_page(
    node_of: MakeNode,
) -> None:
    node = node_of(offload_deadline_s=3.0)
    node.guard.detach(0)
    owner = node.serve(PROMPT, 1, states="storing")
    node.settle(4, pause_s=0.5)
    assert node.offload.holds(owner) and node.offload.backlog == 2
    node.settle(4, pause_s=0.5)
    assert not node.offload.holds(owner) and node.holes("detached", False) == 2


def test_what_prefill_has_stored_is_no_hole_when_nobody_can_be_asked(node_of: MakeNode) -> None:
    node = node_of(offload_deadline_s=3.0)
    node.guard.detach(0)
    owner = node.serve(PROMPT, 6, states=["stored", "will_not"])
    node.settle(8, pause_s=0.5)
    assert not node.offload.holds(owner) and len(owner.keys) == 5
    assert node.holes("detached", False) == 4, "the answer's three, and the one that it left out"


def test_a_store_that_is_back_in_time_gets_what_waited_and_one_that_is_not_leaves_holes(
    node_of: MakeNode, store: FaultyStore
) -> None:
    for is_back in (True, False):
        node = node_of(offload_staging_pages=2, offload_deadline_s=5.0)
        store.pages.clear()
        node.guard.detach(0)
        owner = node.serve(PROMPT, 6, states="storing")
        node.settle(4, pause_s=0.5)
        assert node.offload.backlog == len(owner.keys) == 5
        if is_back:
            node.attach(store)
        node.settle(20)
        assert len(store.pages) == (len(owner.keys) if is_back else 0)
        assert node.holes("detached", False) == (0 if is_back else 5)
        assert node.all_is_free()


def test_an_attempt_that_opened_the_breaker_is_not_held_against_the_page(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of(call_s=SHORT_S, offload_retries=0)
    owner = node.begin([1])
    assert owner is not None
    node.generate(owner, [8])
    step_copies(node)
    store.stall()
    assert node.writes.step()
    node.turn()
    assert node.guard.state == "open" and node.offload.backlog == 1
    store.heal()
    assert node.guard.wait_attached(20)
    node.settle()
    assert set(store.pages) == set(owner.keys)


def test_where_there_never_was_a_store_nothing_is_copied_and_no_page_is_held() -> None:
    node = OffloadNode(None)
    owner = node.begin(PROMPT, states="will_not")
    assert owner is not None
    node.generate(owner, [8] * 5)
    step_copies(node)
    assert node.pool.num_free == node.pool.num_slots and node.offload.backlog > 0
    node.end(owner)
    node.turn()
    assert not node.offload.holds(owner) and not node.mover.moves
    assert node.holes("detached", False) == 5 and node.all_is_free()
