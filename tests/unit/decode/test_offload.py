"""The offload step by step: copies, storage calls and time go on only when the test says so."""

from __future__ import annotations

from faulty_store import FaultyStore
from hicache_node import PAGE
from offload_node import is_right
from offload_steps import PROMPT, MakeNode, keep, step


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
