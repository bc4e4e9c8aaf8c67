"""Slots and copies of the offload, and whose turn it is."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import hypothesis.strategies as st
import pytest
from hypothesis import given
from memory_backend import eventually

from kvloop.decode.offload.chain import Page
from kvloop.decode.offload.sharing import in_turns
from kvloop.decode.offload.staging import Staging, ThreadedBackup, background_backup
from kvloop.engine.page_mover import Move, PageMover
from kvloop.shared_cache.errors import TransferError
from kvloop.shared_cache.slot_owners import SlotOwners


class Mover:
    """Copies nothing; says in which thread it was asked to, and waits for the valve."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.valve = error, threading.Event()
        self.threads: list[int] = []

    def backup(self, pages: Sequence[int], slots: Sequence[int]) -> Move:
        self.threads.append(threading.get_ident())
        assert self.valve.wait(10)
        if self.error is not None:
            raise self.error
        done = SimpleNamespace(num_bytes=7, seconds=0.5, is_done=True, wait=lambda: None)
        return cast(Move, done)


def page_of(index: int) -> Page:
    chain: Any = SimpleNamespace(
        moving=set(), num_copying=0, owner=SimpleNamespace(pages=list(range(100)))
    )
    return Page(chain=chain, index=index, key=b"k", due_at=0.0)


def test_a_cpus_copies_are_made_on_a_thread_and_a_gpus_are_begun_by_the_loop() -> None:
    mover = cast(PageMover, Mover())
    assert background_backup(mover, "cuda") is mover
    assert isinstance(background_backup(mover, "cpu"), ThreadedBackup)


def test_the_loop_goes_on_while_the_thread_copies() -> None:
    mover = Mover()
    staging = Staging(SlotOwners(4), ThreadedBackup(mover), 4)
    page = page_of(3)
    assert staging.begin([page]) == [] and staging.landed() == []
    assert page in page.chain.moving and page.chain.num_copying == 1
    mover.valve.set()
    landed: list[Any] = []
    assert eventually(lambda: bool(landed.extend(staging.landed()) or landed))
    (copy,) = landed
    assert copy == ([page], 7, 0.5, True) and not page.chain.moving
    assert mover.threads and mover.threads[0] != threading.get_ident()
    staging.stop()


@pytest.mark.parametrize("error", [TransferError("broken"), RuntimeError("no such page")])
@pytest.mark.parametrize("is_threaded", [True, False])
def test_a_copy_that_cannot_be_made_costs_no_slot(error: Exception, is_threaded: bool) -> None:
    mover, slots = Mover(error), SlotOwners(2)
    mover.valve.set()
    staging = Staging(slots, ThreadedBackup(mover) if is_threaded else mover, 2)
    pages = [page_of(0), page_of(1)]
    staging.begin(pages)
    landed: list[Any] = []
    assert eventually(lambda: bool(landed.extend(staging.landed()) or landed))
    assert not landed[0].is_whole and landed[0].pages == pages
    assert slots.num_free == staging.num_free == 2 and pages[0].slot is None
    staging.stop()


def test_what_finds_no_slot_is_given_back_in_order() -> None:
    mover = Mover()
    mover.valve.set()
    staging = Staging(SlotOwners(9), mover, 2)
    pages = [page_of(i) for i in range(4)]
    assert staging.begin(pages) == pages[2:] and staging.num_free == 0
    (copy,) = staging.landed()
    staging.free(copy.pages[0])
    assert staging.begin(pages[2:]) == pages[3:]


@given(st.lists(st.lists(st.integers(), max_size=30), max_size=6), st.integers(0, 60))
def test_chains_take_turns_in_their_own_order(lengths: list[list[int]], room: int) -> None:
    queues = [[page_of(i) for i in range(len(queue))] for queue in lengths]
    chosen = in_turns(queues, room)
    assert len(chosen) == min(room, sum(map(len, queues)))
    taken = [[page for page in chosen if page in queue] for queue in queues]
    assert all(queue[: len(mine)] == mine for queue, mine in zip(queues, taken, strict=True))
    left = [len(mine) for queue, mine in zip(queues, taken, strict=True) if len(mine) < len(queue)]
    assert not left or max(map(len, taken)) - min(left) <= 8
