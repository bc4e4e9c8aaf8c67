"""The offload step by step: copies, storage calls and time go on only when the test says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from faulty_store import FaultyStore
from hicache_node import PAGE
from offload_node import SHORT_S, OffloadNode, is_right

from kvloop.decode.offload import Extra
from kvloop.shared_cache.storage_errors import StorageUnavailable
from kvloop.shared_cache.wire import StripRule

PROMPT = [1, 2, 3, 4, 5]
"""Two full pages, and a token of the page that the answer ends."""
MakeNode = Callable[..., OffloadNode]


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def node_of(store: FaultyStore) -> Iterator[MakeNode]:
    nodes: list[OffloadNode] = []

    def make(**flags: Any) -> OffloadNode:
        nodes.append(OffloadNode(store, **flags))
        return nodes[-1]

    yield make
    store.heal()
    for node in nodes:
        node.close()


def step(node: OffloadNode) -> None:
    """A turn, then what it asked for, then a turn that hears of it."""
    node.turn()
    node.mover.finish()
    while node.looks.step() or node.writes.step():
        pass


def keep(store: FaultyStore, node: OffloadNode, keys: list[bytes]) -> None:
    """Prefill has stored these."""
    for key in keys:
        store.put(key, b"prefill's")


# --- off the critical path ------------------------------------------------------------------------


def test_each_page_of_an_answer_is_stored_as_it_fills(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of()
    owner = node.begin(PROMPT)
    assert owner is not None
    keep(store, node, owner.keys[:2])
    for num_pages in (3, 4, 5):
        node.generate(owner, [8] * PAGE)
        for _ in range(4):
            step(node)
        assert set(owner.keys) == set(store.pages) and len(owner.keys) == num_pages
    assert all(is_right(store, key) for key in owner.keys[2:])
    assert node.counted("kvloop_offload_seconds_count") == 3
    node.end(owner)
    node.settle()
    assert node.all_is_free() and node.offload.backlog == 0


def test_the_loop_never_waits_for_a_copy_and_no_page_goes_before_its_copy_ends(
    node_of: MakeNode,
) -> None:
    node = node_of()
    owner = node.serve(PROMPT, 6)
    for _ in range(5):
        node.turn()
        while node.looks.step():
            pass
    assert [move.is_done for move in node.mover.moves] == [False] * len(node.mover.moves)
    assert node.mover.moves and node.offload.holds(owner) and not node.writes.step()
    node.mover.finish()
    node.turn()
    assert not node.offload.holds(owner), "all is in the host pool"
    assert node.offload.backlog > 0
    node.settle()
    assert node.all_is_free()


def test_a_copy_that_fails_is_made_again(node_of: MakeNode, store: FaultyStore) -> None:
    node = node_of()
    owner = node.serve(PROMPT, 6)
    node.mover.fails_at_once = True
    step(node)
    step(node)
    node.mover.fails_at_once = False
    assert node.counted("kvloop_pages_total", path="backup", result="failed") > 0
    node.settle()
    assert set(owner.keys) == set(store.pages) and all(is_right(store, k) for k in owner.keys)
    done = node.counted("kvloop_pages_total", path="backup", result="done")
    assert done == len(owner.keys)
    num_bytes = node.counted("kvloop_pages_bytes_total", path="backup", result="done")
    assert num_bytes == done * node.pool.shape.payload_bytes
    assert node.all_is_free()


def test_a_request_with_the_cache_off_stores_nothing(node_of: MakeNode, store: FaultyStore) -> None:
    node = node_of()
    node.serve(PROMPT, 8, cache="off")
    node.settle()
    assert not store.pages and node.all_is_free()


def test_a_name_that_comes_again_while_its_first_bearer_is_stored_mixes_nothing_up(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of()
    owners = [node.serve([n, n, n], 6) for n in range(20, 24)]  # the fourth is named as the first
    assert owners[0].request_id == owners[3].request_id
    node.settle()
    assert set(store.pages) == {key for owner in owners for key in owner.keys}
    assert node.all_is_free()


# --- the chain is whole ---------------------------------------------------------------------------


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


# --- bounds ---------------------------------------------------------------------------------------


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


def step_copies(node: OffloadNode) -> None:
    for _ in range(3):
        node.turn()
        node.mover.finish()


def test_holes_wait_for_room_whatever_the_policy(node_of: MakeNode, store: FaultyStore) -> None:
    node = node_of(offload_staging_pages=2, offload_back_pressure="drop_newest")
    owner = node.serve([1, 2, 3, 4, 5, 6, 7, 8, 9], 1, states="will_not")
    node.settle()
    assert set(store.pages) == set(owner.keys) and len(owner.keys) == 4
    assert node.holes("policy", True) == 4


# --- retries and deadlines ------------------------------------------------------------------------


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


# --- admissions -----------------------------------------------------------------------------------


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


# --- policy ---------------------------------------------------------------------------------------


def test_what_the_template_strips_is_not_stored(node_of: MakeNode, store: FaultyStore) -> None:
    node = node_of()
    rule = StripRule(opens=(50,), closes=(51,))
    owner = node.begin(PROMPT, strip=rule)
    assert owner is not None
    keep(store, node, owner.keys[:2])
    node.generate(owner, [8, 50, 8, 8, 8, 8, 51, 9])
    node.settle()
    node.end(owner)
    node.settle()
    assert set(store.pages) == set(owner.keys[:3]), "up to the block's beginning"
    assert node.counted("kvloop_offload_skipped_pages_total", reason="stripped") == 3
    bytes_skipped = node.counted("kvloop_offload_skipped_bytes_total", reason="stripped")
    assert bytes_skipped == 3 * node.pool.shape.slot_bytes
    assert sum(node.holes(r, False) for r in ("failed", "deadline", "detached")) == 0


def test_an_answer_that_was_cut_off_inside_its_block_is_stored_at_its_end(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of()
    owner = node.begin(PROMPT, strip=StripRule(opens=(50,), closes=(51,)))
    assert owner is not None
    node.generate(owner, [8, 50, 8, 8, 8, 8, 8])
    node.settle()
    assert len(store.pages) == 3
    node.end(owner)
    node.settle()
    assert set(store.pages) == set(owner.keys) and len(owner.keys) == 6


def test_of_an_ended_request_another_store_is_asked_only_for_what_the_next_turn_repeats(
    node_of: MakeNode,
) -> None:
    node = node_of()
    rule = StripRule(kept_prompt=4)
    owner = node.serve([1, 2, 3, 4, 5, 6, 7, 8, 9], 4, states="will_not", strip=rule)
    node.turn()
    other = FaultyStore()
    node.attach(other)
    node.settle(4, pause_s=0.1)
    assert set(other.pages) == set(owner.keys[:2])
    assert node.offload.backlog == 0 and not node.offload.holds(owner), "nothing is left to do"


def test_policy_all_stores_what_is_stripped(node_of: MakeNode, store: FaultyStore) -> None:
    node = node_of(offload_policy="all")
    owner = node.serve(PROMPT, 8, strip=StripRule(kept_prompt=2), returns=False)
    node.settle()
    assert set(store.pages) == set(owner.keys)


def test_a_session_that_ends_stores_and_mends_nothing_under_selective(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of(offload_policy="selective")
    owner = node.serve(PROMPT, 8, states="will_not", returns=False)
    node.settle(2, pause_s=0.0)
    assert not node.offload.holds(owner) and node.offload.backlog == 0, "nothing is waited for"
    node.settle()
    assert not store.pages and node.all_is_free()
    assert node.holes("policy", False) + node.holes("deadline", False) == 0
    skipped = node.counted("kvloop_offload_skipped_pages_total", reason="session")
    assert skipped == len(owner.keys) - 2
    returning = node.serve([9, *PROMPT], 8, states="will_not", returns=None)
    node.settle()
    assert set(store.pages) == set(returning.keys)


# --- the drain, and pages behind the chain --------------------------------------------------------


def test_a_drain_stores_all_full_pages_and_ignores_the_deadline_after_the_end(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of(offload_deadline_s=0.01)
    owner = node.begin(PROMPT, states="storing")
    assert owner is not None
    node.generate(owner, [8] * 7)
    node.end(owner)
    node.drain(20.0)
    assert set(store.pages) == set(owner.keys) and node.all_is_free()


def test_a_drain_gives_prefills_writes_no_more_time(node_of: MakeNode, store: FaultyStore) -> None:
    node = node_of()
    owner = node.serve(PROMPT, 6, states="storing")
    node.drain(0.5)
    assert set(store.pages) == set(owner.keys) and node.all_is_free()


def test_a_drain_ends_at_its_deadline(node_of: MakeNode, store: FaultyStore) -> None:
    node = node_of(offload_retries=10_000)
    store.has_room = False
    node.serve(PROMPT, 6)
    before = node.now
    node.drain(2.0)
    assert 2.0 <= node.now - before < 3.0
    assert node.offload.backlog == 0 and node.holes("deadline", False) > 0


class Tail:
    """An extra page, and what was done about it."""

    def __init__(self, owner: Any, key: bytes = b"t" * 32) -> None:
        self.prepared: list[int] = []
        self.outcomes: list[bool] = []
        index = owner.num_kv // PAGE
        self.extra = Extra(
            key=key, index=index, prepare=self.prepared.append, done=self.outcomes.append
        )


def test_an_extra_page_is_stored_last_and_prepared_before(
    node_of: MakeNode, store: FaultyStore
) -> None:
    node = node_of()
    owner = node.begin(PROMPT)
    assert owner is not None
    node.generate(owner, [8] * 4)
    tail = Tail(owner)
    node.end(owner, tail.extra)
    while not tail.outcomes:
        step(node)
        assert tail.outcomes or tail.extra.key not in store.pages
        assert (tail.extra.key in store.pages) <= (set(owner.keys) <= set(store.pages))
        node.now += 0.1
    assert tail.outcomes == [True] and len(tail.prepared) == 1
    node.settle()
    assert tail.outcomes == [True] and node.all_is_free()
    assert node.counted("kvloop_offload_seconds_count") == 4, "of full pages"


@pytest.mark.parametrize("when", ["broken", "late", "off", "detached"])
def test_an_extra_page_behind_a_hole_is_told_so_once(
    node_of: MakeNode, store: FaultyStore, when: str
) -> None:
    node = node_of(offload_retries=1, offload_deadline_s=2.0)
    owner = node.begin(PROMPT, cache="off" if when == "off" else "on")
    assert owner is not None
    if when == "detached":
        node.guard.detach(0)
    store.has_room = when == "off"
    node.generate(owner, [8] * 2)
    if when == "broken":
        node.settle()
        store.has_room = True
    node.generate(owner, [8] * 2)
    tail = Tail(owner)
    node.end(owner, tail.extra)
    node.settle()
    assert tail.outcomes == [False] and node.all_is_free()
    assert not store.pages


def test_an_extra_page_that_fails_is_offered_again(node_of: MakeNode, store: FaultyStore) -> None:
    node = node_of()
    owner = node.begin(PROMPT)
    assert owner is not None
    node.generate(owner, [8])
    node.settle(4)
    node.generate(owner, [8])
    tail = Tail(owner)
    store.has_room = False
    node.end(owner, tail.extra)
    node.settle(3, pause_s=0.05)
    store.has_room = True
    node.settle()
    assert tail.outcomes == [True] and len(tail.prepared) > 1
