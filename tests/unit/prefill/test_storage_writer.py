"""Runs of host pages on their way to L3."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from faulty_store import FaultyStore
from hicache_node import HiCacheNode, content_of, keys_of
from step_threads import Gate, WatchedWriter

from kvloop.prefill.storage_writer import StorageWriter
from kvloop.shared_cache.hicache_parts import HostRun


@pytest.fixture
def node(store: FaultyStore) -> Iterator[HiCacheNode]:
    node = HiCacheNode(store, num_slots=16)
    yield node
    node.close()


@pytest.fixture
def writer(node: HiCacheNode) -> Iterator[WatchedWriter]:
    writer = WatchedWriter(node.store)
    yield writer
    writer.close(0.0)


def make_run(node: HiCacheNode, pages: list[int]) -> HostRun:
    """The pages of a prompt but its first, in slots of L2."""
    keys, slots = keys_of(pages), node.pool.alloc(len(pages) - 1)
    assert slots is not None
    for key, slot in zip(keys[1:], slots, strict=True):
        node.pool.payload(0)[slot] = content_of(key)
    return HostRun(keys=keys, indices=list(range(1, len(keys))), slots=slots, generation=0)


def test_a_run_is_saved_under_the_keys_of_its_own_pages(
    node: HiCacheNode, store: FaultyStore, writer: WatchedWriter
) -> None:
    run = make_run(node, [1, 2, 3])
    writer.submit(run)
    assert writer.save_next()
    (written,) = writer.collect()
    assert written.run is run and list(written.results) == [True, True]
    assert store.saved == set(keys_of([1, 2, 3])[1:])


def test_runs_are_saved_in_the_order_they_came(node: HiCacheNode, writer: WatchedWriter) -> None:
    runs = [make_run(node, [first, 8]) for first in range(3)]
    for run in runs:
        writer.submit(run)
    while writer.save_next():
        pass
    assert [written.run for written in writer.collect()] == runs


def test_a_page_counts_as_backlog_until_its_result_is_collected(
    node: HiCacheNode, writer: WatchedWriter
) -> None:
    writer.submit(make_run(node, [1, 2, 3]))
    writer.submit(make_run(node, [4, 5]))
    assert writer.backlog == 3
    writer.save_next()
    assert writer.backlog == 3
    writer.collect()
    assert writer.backlog == 1


def test_what_l3_did_not_take_is_told_page_by_page(
    node: HiCacheNode, store: FaultyStore, writer: WatchedWriter
) -> None:
    first = make_run(node, [1, 2, 3])
    writer.submit(first)
    writer.save_next()
    store.has_room = False
    writer.submit(make_run(node, [1, 2, 3, 4]))
    writer.save_next()
    assert [list(written.results) for written in writer.collect()] == [
        [True, True],
        [True, True, False],
    ]


def test_an_l3_that_fails_is_a_result_and_the_next_run_is_saved(
    node: HiCacheNode, store: FaultyStore, writer: WatchedWriter
) -> None:
    store.stall()
    writer.submit(make_run(node, [1, 2]))
    writer.save_next()
    store.heal()
    assert node.guard.wait_attached(20)
    writer.submit(make_run(node, [3, 4]))
    writer.save_next()
    assert [list(written.results) for written in writer.collect()] == [[False], [True]]


def test_closing_saves_what_is_queued(node: HiCacheNode, store: FaultyStore) -> None:
    writer = StorageWriter(node.store)
    writer.submit(make_run(node, [1, 2]))
    writer.submit(make_run(node, [3, 4]))
    node.store.gate.save_permits.release(2)
    writer.close(20.0)
    assert len(store.saved) == 2


def test_closing_does_not_wait_longer_than_it_was_told_to(node: HiCacheNode) -> None:
    writer = StorageWriter(node.store)
    writer.submit(make_run(node, [1, 2]))  # and nobody lets it be saved
    writer.close(0.01)
    assert writer._thread.is_alive()
    gate: Gate = node.store.gate
    gate.save_permits.release()
