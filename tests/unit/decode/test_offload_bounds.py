"""What waits to be stored is bounded, and who waits for device pages gets them."""

from __future__ import annotations

import pytest
from faulty_store import FaultyStore
from hicache_node import PAGE
from offload_node import SHORT_S
from offload_steps import PROMPT, MakeNode, keep, step_copies


def test_no_more_slots_are_used_than_the_flag_allows(node_of: MakeNode, store: FaultyStore) -> None:
    node = node_of(offload_staging_pages=3)
    owners = [node.serve([n] * 5, 8, states="will_not") for n in range(20, 23)]
    most = 0
    for _ in range(200):
        node.turn()
        most = max(most, node.pool.num_slots - node.pool.num_free)
        node.mover.finish()
        node.looks.step() or node.writes.step()
        node.now += 0.01
    assert most == 3
    assert set(store.pages) == {key for owner in owners for key in owner.keys}
    assert node.all_is_free()


def test_delay_keeps_pages_on_the_device_until_there_is_room(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of(offload_staging_pages=2)
    owner = node.serve(PROMPT, 9)
    keep(store, node, owner.keys[:2])
    for _ in range(6):
        node.turn()
        node.mover.finish()
        node.looks.step()
    assert node.offload.holds(owner) and len(store.pages) == 2
    node.settle()
    assert set(store.pages) == set(owner.keys) and node.all_is_free()


def test_drop_newest_gives_up_the_page_that_filled_last_and_what_follows_it(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of(offload_staging_pages=2, offload_back_pressure="drop_newest")
    owner = node.begin(PROMPT)
    assert owner is not None
    keep(store, node, owner.keys)
    for _ in range(4):
        node.generate(owner, [8] * PAGE)
        node.turn()
    node.end(owner)
    assert node.counted("kvloop_offload_dropped_pages_total", policy="drop_newest") == 1
    node.settle()
    assert set(store.pages) == set(owner.keys[:4]), "two of the answer's four"
    assert node.holes("back_pressure", False) == 2
    assert node.counted("kvloop_offload_skipped_pages_total", reason="behind_hole") == 1
    assert node.all_is_free()


def test_drop_oldest_gives_up_what_has_waited_longest_and_is_in_no_call(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of(call_s=SHORT_S, offload_staging_pages=2, offload_back_pressure="drop_oldest")
    first, second = node.begin([1, 2, 3]), node.begin([4, 5, 6])
    assert first is not None and second is not None
    keep(store, node, [first.keys[0], second.keys[0]])
    node.guard.detach(0)  # so that nothing leaves
    store.stall()
    node.attach(store)
    node.generate(first, [8] * 3)
    step_copies(node)
    node.now += 1
    node.generate(second, [8])
    step_copies(node)
    assert node.counted("kvloop_offload_dropped_pages_total", policy="drop_oldest") == 1
    store.heal()
    assert node.guard.wait_attached(20)
    for owner in (first, second):
        node.end(owner)
    node.settle()
    assert first.keys[1] not in store.pages and second.keys[1] in store.pages
    assert node.holes("back_pressure", False) == 2 and node.all_is_free()


def test_holes_wait_for_room_whatever_the_policy(node_of: MakeNode, store: FaultyStore) -> None:
    node = node_of(offload_staging_pages=2, offload_back_pressure="drop_newest")
    owner = node.serve([1, 2, 3, 4, 5, 6, 7, 8, 9], 1, states="will_not")
    node.settle()
    assert set(store.pages) == set(owner.keys) and len(owner.keys) == 4
    assert node.holes("policy", True) == 4


@pytest.mark.parametrize(
    ("is_away", "waited_s", "cause"),
    [(True, 1.5, "detached"), (False, 31.0, "back_pressure")],
)
def test_who_waits_too_long_for_device_pages_gets_those_of_the_turn_that_ended_first(
    node_of: MakeNode, store: FaultyStore, is_away: bool, waited_s: float, cause: str
) -> None:
    node = node_of(offload_staging_pages=1, offload_deadline_s=1000.0)
    store.has_room = False
    if is_away:
        node.guard.detach(0)
    first = node.serve(PROMPT, 6, states="will_not")
    node.now += 0.01
    second = node.serve([9, *PROMPT], 6)
    node.settle(3, pause_s=0.01)
    node.offload.hurry(waited_s - 1.0)
    node.turn()
    assert node.offload.holds(first) and node.offload.holds(second), "not yet"
    node.offload.hurry(waited_s)
    node.turn()
    node.mover.finish()
    node.turn()
    assert not node.offload.holds(first) and node.offload.holds(second), "one in a turn"
    assert node.holes(cause, False) >= 4
    assert node.holes("detached", False) + node.holes("back_pressure", False) <= 5
    node.offload.hurry(waited_s)
    node.turn()
    node.mover.finish()
    node.turn()
    assert not node.offload.holds(second)


def test_a_wait_of_the_past_makes_nobody_let_go(node_of: MakeNode) -> None:
    node = node_of(offload_staging_pages=1)
    node.guard.detach(0)
    node.offload.hurry(50.0)
    node.turn()
    owner = node.serve(PROMPT, 6)
    node.turn()
    node.offload.hurry(50.0)
    assert node.offload.holds(owner)
    node.turn()
    assert not node.offload.holds(owner)
