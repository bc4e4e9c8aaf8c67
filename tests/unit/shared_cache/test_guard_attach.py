"""Backends that are attached, detached, replaced and cleared while calls run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from guards import (
    KEYS,
    QUICK,
    SHAPE,
    SLOW,
    Threads,
    attach,
    begin_call,
    empty_guard,
    in_background,
    opener,
)
from memory_backend import MemoryBackend, Valve, eventually

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.guard import GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable


@pytest.fixture
def valves() -> Iterator[list[Valve]]:
    valves = [Valve(), Valve()]
    yield valves
    for valve in valves:
        valve.error = None
        valve.is_open.set()


@pytest.fixture
def pool() -> HostPool:
    return HostPool(SHAPE, 4)


@pytest.fixture
def guard(pool: HostPool) -> Iterator[GuardedBackend]:
    guard = empty_guard(pool, QUICK)
    yield guard
    guard.close(1)


def test_a_node_without_l3_takes_a_backend_later(
    guard: GuardedBackend, valves: list[Valve]
) -> None:
    assert guard.status()["backend"] == "none" and guard.status()["state"] == "detached"
    attach(guard, valves[0], "first")
    assert guard.exists(KEYS[:1]) == [False]
    status = guard.status()
    assert (status["backend"], status["state"], status["last_error"]) == ("first", "attached", None)


def test_after_detach_calls_miss_and_the_backend_is_closed(
    guard: GuardedBackend, valves: list[Valve]
) -> None:
    attach(guard, valves[0])
    assert guard.detach(5)
    assert guard.exists(KEYS) is None and guard.state == "detached"
    assert guard.status()["backend"] == "none" and guard.epoch is None
    assert valves[0].num_closed == valves[0].num_opened == 1
    assert guard.detach(5), "again is no error"


def test_a_running_call_ends_with_its_answer_while_the_backend_drains(
    pool: HostPool, valves: list[Valve]
) -> None:
    guard = empty_guard(pool, SLOW)
    attach(guard, valves[0])
    call, answers = begin_call(guard, valves[0], lambda: guard.exists(KEYS[:1]))
    detaching, drained = in_background(lambda: guard.detach(10))
    assert eventually(lambda: guard.state == "draining")
    assert guard.exists(KEYS[:1]) is None, "new calls are refused"
    assert guard.status()["backend"] == "memory" and valves[0].num_closed == 0
    valves[0].is_open.set()
    call.join(5)
    detaching.join(5)
    assert answers == [[False]] and drained == [True] and guard.state == "detached"


def test_calls_that_outlast_the_drain_are_abandoned_with_their_slots(
    guard: GuardedBackend, valves: list[Valve], pool: HostPool
) -> None:
    attach(guard, valves[0])
    slots = pool.alloc(1)
    assert slots is not None
    call, _ = begin_call(guard, valves[0], lambda: guard.get(KEYS[:1], slots))
    assert guard.detach(0.05) is False
    assert guard.state == "detached" and "did not end within 0.05 s" in str(guard.last_error)
    call.join(5)
    pool.free(slots)
    assert pool.num_free == 3 and valves[0].num_closed == 0
    attach(guard, valves[1])
    assert guard.last_error is None and guard.exists(KEYS[:1]) == [False]
    assert pool.num_free == 3, "the slot is the abandoned call's still"
    valves[0].is_open.set()
    assert eventually(lambda: pool.num_free == 4 and valves[0].num_closed == 1)


def test_attach_replaces_at_once_and_drains_the_old_one_behind_the_scenes(
    pool: HostPool, valves: list[Valve]
) -> None:
    guard = empty_guard(pool, SLOW)
    attach(guard, valves[0], "old")
    valves[1].pages[KEYS[0]] = bytes(SHAPE.slot_bytes)
    call, answers = begin_call(guard, valves[0], lambda: guard.get_small("x"))
    attach(guard, valves[1], "new")
    assert guard.exists(KEYS[:2]) == [True, False] and guard.status()["backend"] == "new"
    assert not answers and valves[0].num_closed == 0
    valves[0].is_open.set()
    call.join(5)
    assert answers == [None]
    assert eventually(lambda: valves[0].num_closed == 1)
    assert guard.state == "attached" and guard.close()


@pytest.mark.parametrize("kind", ["exists", "set", "put_small"])
def test_what_a_replaced_backend_says_of_its_content_counts_no_more(
    kind: str, pool: HostPool, valves: list[Valve]
) -> None:
    guard = empty_guard(pool, SLOW)
    attach(guard, valves[0])
    valves[0].pages[KEYS[0]] = bytes(SHAPE.slot_bytes)
    slots = pool.alloc(1)
    assert slots is not None
    calls: dict[str, Callable[[], object]] = {
        "exists": lambda: guard.exists(KEYS[:1]),
        "set": lambda: guard.set(KEYS[:1], slots),
        "put_small": lambda: guard.put_small("x", b"y"),
    }
    call, answers = begin_call(guard, valves[0], calls[kind])
    attach(guard, valves[1])
    valves[0].is_open.set()
    call.join(5)
    assert answers == [False if kind == "put_small" else None]
    assert guard.close()


def test_a_page_read_from_a_replaced_backend_is_still_given(
    pool: HostPool, valves: list[Valve]
) -> None:
    guard = empty_guard(pool, SLOW)
    attach(guard, valves[0])
    valves[0].pages[KEYS[0]] = b"\x07" * SHAPE.slot_bytes
    slots = pool.alloc(1)
    assert slots is not None
    call, answers = begin_call(guard, valves[0], lambda: guard.get(KEYS[:1], slots))
    attach(guard, valves[1])
    valves[0].is_open.set()
    call.join(5)
    assert answers == [[True]] and bytes(pool.view(slots[0])[:2]) == b"\x07\x07"
    assert guard.close()


def test_a_replacement_that_cannot_open_says_so_and_goes_on_trying(
    guard: GuardedBackend, valves: list[Valve]
) -> None:
    attach(guard, valves[0])
    valves[1].error = StorageUnavailable("not yet")
    guard.attach(opener(valves[1], guard.pool), "late")
    assert guard.wait_settled(5) and guard.state == "open"
    status = guard.status()
    assert (status["backend"], status["last_error"]) == ("late", "cannot open")
    assert guard.exists(KEYS) is None
    valves[1].error = None
    assert guard.wait_attached(5) and guard.exists(KEYS[:1]) == [False]
    assert eventually(lambda: valves[0].num_closed == 1)


def test_whatever_a_backend_throws_as_it_opens_it_is_tried_again(
    guard: GuardedBackend, valves: list[Valve]
) -> None:
    errors: list[BaseException] = [SystemExit("bye"), RuntimeError(), MemoryError("no room")]

    def open_at_last() -> StorageBackend:
        if errors:
            raise errors.pop(0)
        return MemoryBackend(valves[0], guard.pool)

    guard.attach(open_at_last, "fragile")
    assert guard.wait_attached(5) and not errors


def test_a_backend_that_hangs_as_it_opens_can_be_replaced_and_never_comes_back(
    guard: GuardedBackend, valves: list[Valve]
) -> None:
    go_on = threading.Event()

    def open_slowly() -> StorageBackend:
        assert go_on.wait(30)
        return MemoryBackend(valves[0], guard.pool)

    guard.attach(open_slowly, "slow")
    assert guard.wait_settled(0.05) is False and guard.state == "attaching"
    attach(guard, valves[1], "quick")
    go_on.set()
    assert eventually(lambda: valves[0].num_closed == valves[0].num_opened)
    assert guard.status()["backend"] == "quick" and guard.exists(KEYS[:1]) == [False]


def test_detach_does_not_wait_for_a_backend_that_hangs_as_it_opens(guard: GuardedBackend) -> None:
    threads = Threads()
    go_on, has_begun = threading.Event(), threading.Event()

    def hang() -> StorageBackend:
        has_begun.set()
        assert go_on.wait(30)
        raise StorageUnavailable("never mind")

    guard.attach(hang, "slow")
    assert has_begun.wait(5)
    assert guard.detach(0.05) is False and guard.state == "detached"
    go_on.set()
    assert eventually(threads.are_over)


def test_no_new_connection_is_opened_while_too_many_openings_hang(
    pool: HostPool, valves: list[Valve]
) -> None:
    guard = empty_guard(pool, replace(QUICK, max_stuck_calls=1))
    go_on, has_begun = threading.Event(), threading.Semaphore(0)

    def hang() -> StorageBackend:
        has_begun.release()
        assert go_on.wait(30)
        raise StorageUnavailable("never mind")

    for _ in range(2):
        guard.attach(hang, "slow")
        assert has_begun.acquire(timeout=5)
    guard.attach(opener(valves[0], pool), "third")
    assert guard.wait_settled(5) and "2 calls of earlier" in str(guard.last_error)
    assert valves[0].num_opened == 0
    go_on.set()
    assert guard.wait_attached(5) and guard.close()


def test_each_attachment_is_a_new_generation_and_a_mere_recovery_is_none(
    guard: GuardedBackend, valves: list[Valve]
) -> None:
    assert guard.generation == 0
    attach(guard, valves[0])
    assert guard.generation == 1
    valves[0].is_open.clear()
    guard.exists(KEYS)
    assert guard.state == "open"
    valves[0].is_open.set()
    assert guard.wait_attached(5) and guard.generation == 1
    assert guard.detach(5) and guard.generation == 1
    attach(guard, valves[0])
    assert guard.generation == 2
    attach(guard, valves[1])
    assert guard.generation == 3


def test_lost_content_is_a_new_generation(pool: HostPool, valves: list[Valve]) -> None:
    guard = empty_guard(pool, replace(QUICK, check_s=0.02))
    attach(guard, valves[0])
    assert eventually(lambda: guard.epoch is not None)
    before = guard.generation
    valves[0].pages.clear()
    assert eventually(lambda: guard.generation > before)
    assert guard.close()


def test_a_store_without_records_may_have_lost_all_while_it_was_away(
    guard: GuardedBackend, valves: list[Valve]
) -> None:
    valves[0].has_room = False
    attach(guard, valves[0])
    assert (guard.generation, guard.epoch) == (1, None)
    valves[0].is_open.clear()
    guard.exists(KEYS)
    valves[0].is_open.set()
    assert guard.wait_attached(5) and guard.generation == 2


def test_the_generation_has_grown_before_the_new_content_can_be_seen(
    guard: GuardedBackend, valves: list[Valve]
) -> None:
    attach(guard, valves[0])
    wrong = threading.Event()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            if guard.exists(KEYS[:1]) == [True] and guard.generation < 2:
                wrong.set()

    valves[1].pages[KEYS[0]] = bytes(SHAPE.slot_bytes)
    thread, _ = in_background(watch)
    attach(guard, valves[1])
    stop.set()
    thread.join(5)
    assert not wrong.is_set() and guard.generation == 2


def test_fifty_cycles_leave_no_thread_no_slot_and_no_open_backend(
    pool: HostPool, valves: list[Valve]
) -> None:
    threads = Threads()
    guard = empty_guard(pool, QUICK)
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            slots = pool.alloc(1)
            assert slots is not None
            guard.set(KEYS[:1], slots)
            guard.get(KEYS[:1], slots)
            pool.free(slots)

    users = [in_background(use)[0] for _ in range(2)]
    for i in range(50):
        attach(guard, valves[i % 2])
        if i % 3 == 0:
            assert guard.detach(5)
    stop.set()
    for user in users:
        user.join(5)
    assert guard.generation == 50
    assert guard.detach(5) and eventually(threads.are_over)
    for valve in valves:
        assert valve.num_opened == valve.num_closed == 25
    assert pool.num_free == 4


def test_clear_empties_the_store_and_is_a_new_generation_at_once(
    guard: GuardedBackend, valves: list[Valve]
) -> None:
    attach(guard, valves[0])
    valves[0].pages[KEYS[0]] = bytes(SHAPE.slot_bytes)
    before = guard.generation
    assert guard.clear() == "cleared"
    assert guard.exists(KEYS[:1]) == [False] and guard.generation == before + 1
    assert guard.epoch is not None


def test_a_clear_that_takes_long_opens_no_breaker(
    guard: GuardedBackend, valves: list[Valve]
) -> None:
    attach(guard, valves[0])
    valves[0].is_open.clear()
    assert guard.clear(timeout_s=0.3) == "unfinished", "three times a call's deadline"
    assert guard.state == "attached" and guard.status()["stats"]["stalls"] == 0
    valves[0].is_open.set()


def test_a_clear_that_fails_says_why(guard: GuardedBackend, valves: list[Valve]) -> None:
    assert guard.clear() == "unavailable", "nothing is attached"
    attach(guard, valves[0])
    valves[0].error = StorageUnavailable("read-only")
    assert guard.clear() == "failed" and guard.last_error == "read-only"


def test_status_survives_counters_that_raise(guard: GuardedBackend, valves: list[Valve]) -> None:
    attach(guard, valves[0])
    valves[0].stats_error = RuntimeError("bug")
    assert guard.status()["state"] == "attached" and guard.status()["stats"]["errors"] == 0
