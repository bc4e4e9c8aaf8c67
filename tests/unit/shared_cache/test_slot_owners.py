import threading

import pytest

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.slot_owners import SlotOwners


def test_alloc_is_all_or_nothing() -> None:
    slots = SlotOwners(3)
    assert slots.alloc(4) is None
    assert slots.alloc(2) == [0, 1]
    assert slots.alloc(2) is None
    assert slots.num_free == 1


def test_freed_slots_are_given_out_again() -> None:
    slots = SlotOwners(2)
    taken = slots.alloc(2)
    assert taken is not None
    slots.free(taken)
    assert sorted(slots.alloc(2) or []) == [0, 1]


def test_a_second_free_is_caught() -> None:
    slots = SlotOwners(1)
    slots.alloc(1)
    slots.free([0])
    with pytest.raises(AssertionError, match="freed twice"):
        slots.free([0])


def test_a_free_slot_cannot_be_retained() -> None:
    with pytest.raises(AssertionError, match="slot 0 is free"):
        SlotOwners(1).retain([0])


def test_a_retained_slot_comes_back_after_its_last_owner() -> None:
    slots = SlotOwners(1)
    slots.alloc(1)
    slots.retain([0])
    slots.free([0])
    assert slots.alloc(1) is None
    slots.free([0])
    assert slots.alloc(1) == [0]


def test_as_many_as_there_are_is_never_more_than_asked() -> None:
    slots = SlotOwners(3)
    assert slots.alloc_up_to(2) == [0, 1]
    assert slots.alloc_up_to(2) == [2]
    assert slots.alloc_up_to(2) == []
    assert slots.alloc_up_to(0, timeout_s=30) == []


def test_whoever_waits_for_a_slot_gets_the_one_that_comes_free() -> None:
    slots = SlotOwners(1)
    taken = slots.alloc_up_to(1)
    freeing = threading.Timer(0.02, slots.free, [taken])
    freeing.start()
    assert slots.alloc_up_to(1, timeout_s=30) == [0]
    freeing.join()


def test_threads_never_share_a_slot() -> None:
    slots = SlotOwners(8)
    clashes: list[int] = []
    held: set[int] = set()

    def work() -> None:
        for i in range(300):
            taken = slots.alloc_up_to(2, 1.0) if i % 2 else slots.alloc(2) or []
            clashes.extend(held.intersection(taken))
            held.update(taken)
            held.difference_update(taken)
            slots.free(taken)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clashes == [] and slots.num_free == 8


def test_a_pool_without_slots_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_slots must be positive, got 0"):
        SlotOwners(0)
