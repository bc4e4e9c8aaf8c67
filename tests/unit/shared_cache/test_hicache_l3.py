"""What of L2 is written to L3, and what is known of it there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faulty_store import FaultyStore
from hicache_model import Audit
from hicache_node import HiCacheNode, keys_of, object_of
from step_threads import Gate

from kvloop.shared_cache.tree_node import Tier

WHOLE = ["stored"] * 3
NONE = ["will_not"] * 3


@pytest.fixture
def store() -> FaultyStore:
    return FaultyStore()


@pytest.fixture
def node(store: FaultyStore) -> Iterator[HiCacheNode]:
    node = HiCacheNode(store)
    yield node
    node.close()


@pytest.fixture
def alone() -> Iterator[HiCacheNode]:
    """A node whose L3 comes later."""
    node = HiCacheNode(None, num_pages=40, num_slots=40)
    yield node
    node.close()


def states(node: HiCacheNode, pages: list[int]) -> list[str]:
    return list(node.cache.marks.states(keys_of(pages)))


def save_all(node: HiCacheNode) -> None:
    while node.writer.save_next():
        pass
    node.controller.turn()


def test_decode_is_told_that_pages_are_on_their_way_and_later_that_they_are_stored(
    node: HiCacheNode,
) -> None:
    job = node.serve([1, 2, 3])
    assert job.storage == ["storing"] * 3
    node.settle()
    assert states(node, [1, 2, 3]) == WHOLE


def test_decode_is_told_that_pages_will_not_come_while_no_l3_is_attached(
    alone: HiCacheNode,
) -> None:
    assert alone.serve([1, 2, 3]).storage == NONE


def test_decode_is_told_nothing_of_pages_when_no_tier_may_be_used(node: HiCacheNode) -> None:
    assert node.serve([1, 2, 3], cache="off").storage == NONE


def test_pages_that_l3_has_no_room_for_will_not_be_there(
    node: HiCacheNode, store: FaultyStore
) -> None:
    store.has_room = False
    node.serve([1, 2, 3])
    node.settle()
    assert states(node, [1, 2, 3]) == NONE
    store.has_room = True
    node.serve([1, 2, 3])  # the next use offers them again
    node.settle()
    assert states(node, [1, 2, 3]) == WHOLE


def test_a_page_goes_to_l3_only_once_its_copy_is_in_its_slot(
    node: HiCacheNode, store: FaultyStore
) -> None:
    node.serve([1, 2, 3])
    node.controller.turn()
    assert not node.writer.runs
    node.settle()
    assert store.saved == set(keys_of([1, 2, 3]))


def test_another_use_of_pages_whose_copy_is_under_way_does_not_send_them_early(
    node: HiCacheNode, store: FaultyStore
) -> None:
    node.guard.detach()
    node.controller.turn()
    node.serve([1, 2, 3])
    node.attach(store)
    node.controller.turn()
    node.serve([1, 2, 3])
    save_all(node)
    assert store.pages == {}
    Audit(node, [], [], [store]).check()
    node.settle()
    assert store.saved == set(keys_of([1, 2, 3]))


def test_a_new_l3_gets_no_page_whose_copy_is_still_under_way(
    alone: HiCacheNode, store: FaultyStore
) -> None:
    alone.serve([1, 2, 3])
    alone.attach(store)
    alone.controller.turn()
    save_all(alone)
    assert store.pages == {}
    alone.settle()
    assert store.saved == set(keys_of([1, 2, 3]))
    Audit(alone, [], [], [store]).check()


def test_a_copy_that_ends_in_the_time_of_another_l3_is_known_to_be_stored_there(
    node: HiCacheNode,
) -> None:
    node.serve([1, 2, 3])
    other = FaultyStore()
    node.attach(other)
    node.controller.turn()
    node.settle()
    assert other.saved == set(keys_of([1, 2, 3])) and states(node, [1, 2, 3]) == WHOLE


def test_all_of_l2_goes_to_an_l3_that_is_attached_later(
    alone: HiCacheNode, store: FaultyStore
) -> None:
    for first in range(6):
        alone.serve([first, 8, 9])
    alone.settle()
    alone.attach(store)
    alone.settle()
    assert len(store.saved) == 18
    assert "deferred" not in {result for _, result in alone.metrics.pages}


def test_a_new_l3_gets_all_of_l2_although_only_half_of_it_may_wait_at_once(
    alone: HiCacheNode, store: FaultyStore
) -> None:
    for first in range(10):
        alone.serve([first, 7, 8])
    alone.settle()
    alone.attach(store)
    alone.controller.turn()
    assert sum(len(run.slots) for run in alone.writer.runs) == 20
    alone.settle()
    assert len(store.saved) == 30


def test_what_was_known_of_one_l3_is_not_believed_of_another(node: HiCacheNode) -> None:
    node.serve([1, 2, 3])
    node.settle()
    node.cache.flush()
    node.attach(FaultyStore())
    node.controller.turn()
    assert states(node, [1, 2, 3]) == NONE


def test_a_write_to_the_l3_before_says_nothing_of_this_one(node: HiCacheNode) -> None:
    node.serve([1, 2, 3])
    node.mover.finish()
    node.controller.turn()
    node.writer.save_next()  # its result is not collected yet
    node.attach(FaultyStore())
    node.controller.turn()
    assert states(node, [1, 2, 3]) == ["storing"] * 3


def test_pages_read_from_the_l3_before_are_not_known_to_be_in_this_one(
    node: HiCacheNode, store: FaultyStore
) -> None:
    for key in keys_of([1, 2, 3]):
        store.put(key, object_of(key, "decode"))
    job = node.come([1, 2, 3])
    read_all(node.gate)
    node.controller.turn()
    read_all(node.gate)
    other = FaultyStore()
    node.attach(other)
    node.controller.turn()
    assert node.tree.num_pages(Tier.HOST) == 3
    assert "stored" not in states(node, [1, 2, 3])
    node.controller.forget(job)
    node.settle()
    assert other.saved == set(keys_of([1, 2, 3]))


def read_all(gate: Gate) -> None:
    while gate.step(0):
        pass


def test_pages_found_in_l3_are_not_written_there_again(
    node: HiCacheNode, store: FaultyStore
) -> None:
    for key in keys_of([1, 2, 3]):
        store.put(key, object_of(key, "decode"))
    node.serve([1, 2, 3])
    node.settle()
    assert states(node, [1, 2, 3]) == WHOLE and store.saved == set()


def test_a_page_that_had_to_be_computed_is_not_believed_to_be_in_l3_and_is_written_again(
    node: HiCacheNode, store: FaultyStore
) -> None:
    node.serve([1, 2, 3])
    node.settle()
    node.cache.flush()
    del store.pages[keys_of([1, 2, 3])[1]]
    assert node.serve([1, 2, 3]).storage == ["stored", "storing", "storing"]
    node.settle()
    assert set(store.pages) == set(keys_of([1, 2, 3]))


def test_a_slow_l3_holds_half_of_l2_and_no_more(store: FaultyStore) -> None:
    node = HiCacheNode(store, num_pages=20, num_slots=10)
    for first in range(4):
        node.serve([first, 8])
        node.mover.finish()
        node.controller.turn()
    assert sum(len(run.slots) for run in node.writer.runs) == 5
    assert node.metrics.pages["write_through", "deferred"] == 3
    node.settle()
    node.serve([3, 8])  # its next use
    node.settle()
    assert set(keys_of([3, 8])) <= store.saved
    node.close()


def test_l2_goes_on_to_take_pages_while_l3_is_slow(store: FaultyStore) -> None:
    node = HiCacheNode(store, num_pages=20, num_slots=10)
    for first in range(20):
        node.serve([first, 8])
        node.mover.finish()
        node.controller.turn()
    assert len(node.cache.tree.run(Tier.HOST, keys_of([19, 8]))) == 2
    assert store.saved == set()
    node.close()


def test_no_more_pages_are_remembered_as_stored_than_configured(
    node: HiCacheNode, store: FaultyStore
) -> None:
    node.cache.marks._max_known = 2
    node.serve([1, 2, 3])
    node.settle()
    assert states(node, [1, 2, 3]) == ["stored", "stored", "will_not"]
