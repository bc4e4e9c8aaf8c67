import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from guards import KEYS, QUICK, SHAPE, take
from memory_backend import MemoryBackend, Valve, eventually

from kvloop.shared_cache.guard import GuardConfig, GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.storage_errors import StorageUnavailable


@pytest.fixture
def valve() -> Iterator[Valve]:
    valve = Valve()
    yield valve
    valve.error = None
    valve.is_open.set()


@pytest.fixture
def pool() -> HostPool:
    return HostPool(SHAPE, 4)


def guarded(valve: Valve, pool: HostPool, config: GuardConfig = QUICK) -> GuardedBackend:
    return GuardedBackend(
        lambda: MemoryBackend(valve, pool),
        pool,
        name="memory",
        namespace=b"n" * 32,
        config=config,
    )


@pytest.fixture
def guard(valve: Valve, pool: HostPool) -> Iterator[GuardedBackend]:
    guard = guarded(valve, pool)
    assert guard.wait_attached(5)
    yield guard
    valve.error = None
    valve.is_open.set()
    assert guard.close()


def test_calls_pass_while_attached(guard: GuardedBackend, pool: HostPool) -> None:
    [slot] = take(pool, 1)
    pool.view(slot)[:5] = b"hello"
    assert guard.set(KEYS[:1], [slot]) == [True]
    pool.view(slot)[:5] = b"-----"
    assert guard.exists(KEYS[:2]) == [True, False]
    assert guard.get(KEYS[:1], [slot]) == [True]
    assert bytes(pool.view(slot)[:5]) == b"hello"
    assert guard.put_small("name", b"value") and guard.get_small("name") == b"value"
    assert guard.delete(KEYS[:2]) == [True, False]
    assert guard.clear() == "cleared" and guard.get_small("name") is None


def test_slots_are_free_again_after_a_call(guard: GuardedBackend, pool: HostPool) -> None:
    slots = take(pool, 4)
    guard.set(KEYS, slots)
    pool.free(slots)
    assert pool.num_free == 4


def test_a_stalled_call_opens_the_breaker_and_says_so(guard: GuardedBackend, valve: Valve) -> None:
    valve.is_open.clear()
    assert guard.exists(KEYS) is None
    assert guard.state == "open"
    status = guard.status()
    assert status["state"] == "open" and status["backend"] == "memory"
    assert status["last_error"] == "a call took longer than 0.1 s"
    assert status["namespace"] == (b"n" * 32).hex()
    assert status["stats"]["stalls"] == 1


def test_while_open_calls_are_refused_and_take_no_thread(
    guard: GuardedBackend, valve: Valve, pool: HostPool
) -> None:
    valve.is_open.clear()
    guard.exists(KEYS)
    before = guard.status()["stats"]["refused"]
    assert guard.get(KEYS[:1], take(pool, 1)) is None
    assert guard.get_small("x") is None and guard.put_small("x", b"") is False
    assert guard.clear() == "unavailable"
    assert guard.status()["stats"]["refused"] == before + 4
    assert guard.status()["stats"]["stalls"] == 1


def test_a_stalled_get_keeps_its_slots_until_it_ends(
    guard: GuardedBackend, valve: Valve, pool: HostPool
) -> None:
    valve.pages[KEYS[0]] = b"\xaa" * SHAPE.slot_bytes
    valve.is_open.clear()
    slots = take(pool, 1)
    assert guard.get(KEYS[:1], slots) is None
    pool.free(slots)
    others = take(pool, 3)
    assert slots[0] not in others and pool.alloc(1) is None
    for slot in others:
        pool.view(slot)[:] = bytes(SHAPE.slot_bytes)
    valve.is_open.set()
    assert eventually(lambda: pool.num_free == 1)
    assert all(not any(pool.view(slot)) for slot in others)


def test_a_call_that_never_began_gives_its_slots_back_at_once(
    guard: GuardedBackend, valve: Valve, pool: HostPool
) -> None:
    valve.is_open.clear()
    stuck = [threading.Thread(target=guard.exists, args=(KEYS,)) for _ in range(2)]
    for thread in stuck:
        thread.start()
    slots = take(pool, 2)
    guard.set(KEYS[:2], slots)
    pool.free(slots)
    for thread in stuck:
        thread.join()
    assert pool.num_free == 4


def test_after_a_stall_the_backend_is_attached_again_by_itself(
    guard: GuardedBackend, valve: Valve
) -> None:
    valve.is_open.clear()
    guard.exists(KEYS)
    valve.is_open.set()
    assert guard.wait_attached(10)
    assert guard.exists(KEYS) == [False] * 4


def test_errors_in_a_row_open_the_breaker(guard: GuardedBackend, valve: Valve) -> None:
    valve.error = StorageUnavailable("disk on fire")
    for _ in range(QUICK.max_failures):
        assert guard.state == "attached"
        assert guard.exists(KEYS) is None
    assert guard.state == "open" and guard.last_error == "disk on fire"


def test_a_success_between_errors_keeps_the_breaker_closed(
    guard: GuardedBackend, valve: Valve
) -> None:
    for _ in range(QUICK.max_failures * 2):
        valve.error = StorageUnavailable("now and then")
        guard.exists(KEYS)
        valve.error = None
        guard.exists(KEYS)
    assert guard.state == "attached"


def test_a_backend_that_raises_anything_at_all_only_misses(
    guard: GuardedBackend, valve: Valve
) -> None:
    valve.error = RuntimeError("bug")
    assert guard.exists(KEYS) is None
    valve.error = TimeoutError()
    assert guard.exists(KEYS) is None
    assert guard.status()["stats"]["stalls"] == 0


def test_a_dead_connection_is_replaced_by_a_new_one(guard: GuardedBackend, valve: Valve) -> None:
    valve.error = StorageUnavailable("gone")
    for _ in range(QUICK.max_failures):
        guard.exists(KEYS)
    assert eventually(lambda: valve.num_closed == 1)
    valve.error = None
    assert guard.wait_attached(10)
    assert valve.num_opened == 2 and guard.exists(KEYS) == [False] * 4


def test_a_node_starts_without_its_store_and_finds_it_later(valve: Valve, pool: HostPool) -> None:
    valve.error = StorageUnavailable("not yet")
    guard = guarded(valve, pool)
    assert eventually(lambda: guard.state == "open")
    assert guard.last_error == "cannot open" and guard.exists(KEYS) is None
    valve.error = None
    assert guard.wait_attached(10)
    assert guard.close() and valve.num_closed == 1


def test_a_backend_is_never_closed_under_a_running_call(valve: Valve, pool: HostPool) -> None:
    guard = guarded(valve, pool)
    assert guard.wait_attached(5)
    valve.is_open.clear()
    slots = take(pool, 1)
    assert guard.get(KEYS[:1], slots) is None
    assert guard.close(timeout_s=0.1) is False
    assert valve.num_closed == 0 and guard.state == "detached"
    valve.is_open.set()
    assert eventually(lambda: valve.num_closed == 1)


def test_no_new_connection_is_opened_while_too_many_calls_hang(
    valve: Valve, pool: HostPool
) -> None:
    config = GuardConfig(
        deadline_s=0.1, first_retry_s=0.02, max_retry_s=0.05, num_threads=2, max_stuck_calls=1
    )
    guard = guarded(valve, pool, config)
    assert guard.wait_attached(5)
    valve.is_open.clear()
    calls = [threading.Thread(target=guard.exists, args=(KEYS,)) for _ in range(2)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert eventually(lambda: "still hang" in (guard.last_error or ""))
    assert valve.num_opened == 1
    valve.is_open.set()
    assert guard.wait_attached(10) and guard.close()


def test_a_closed_guard_refuses(valve: Valve, pool: HostPool) -> None:
    guard = guarded(valve, pool)
    assert guard.wait_attached(5) and guard.close()
    assert guard.state == "detached" and guard.exists(KEYS) is None
    assert guard.status()["state"] == "detached"


def test_a_deadline_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="deadline_s must be positive, got 0"):
        GuardConfig(deadline_s=0)


def test_a_store_that_lost_its_content_gets_another_epoch(valve: Valve, pool: HostPool) -> None:
    guard = guarded(valve, pool, replace(QUICK, check_s=0.05))
    assert guard.wait_attached(5)
    first = guard.epoch
    assert first
    valve.pages.clear()
    assert eventually(lambda: guard.epoch != first)
    assert guard.close()


def test_an_epoch_lasts_while_the_content_does_and_is_the_same_for_all(
    valve: Valve, pool: HostPool
) -> None:
    guards = [guarded(valve, pool, replace(QUICK, check_s=0.02)) for _ in range(2)]
    assert all(guard.wait_attached(5) for guard in guards)
    assert eventually(lambda: guards[0].epoch == guards[1].epoch)
    epoch = guards[0].epoch
    valve.error = StorageUnavailable("away")
    assert eventually(lambda: all(guard.state == "open" for guard in guards))
    valve.error = None
    assert all(guard.wait_attached(5) for guard in guards)
    assert [guard.epoch for guard in guards] == [epoch, epoch]
    assert all(guard.close() for guard in guards)


def test_a_dead_backend_is_noticed_without_a_call(valve: Valve, pool: HostPool) -> None:
    guard = guarded(valve, pool, replace(QUICK, check_s=0.02))
    assert guard.wait_attached(5)
    valve.error = StorageUnavailable("gone")
    assert eventually(lambda: guard.state == "open")
    assert guard.last_error == "gone"
    valve.error = None
    assert guard.close()


def test_a_guard_without_a_backend_is_detached_and_refuses_all(pool: HostPool) -> None:
    guard = GuardedBackend(None, pool, name="none", namespace=b"n" * 32)
    assert guard.state == "detached" and guard.exists(KEYS) is None and guard.epoch is None
    assert guard.close()


def test_a_store_that_stays_away_is_tried_ever_more_rarely(valve: Valve, pool: HostPool) -> None:
    tries = []

    def fail() -> MemoryBackend:
        tries.append(None)
        raise StorageUnavailable("away")

    config = replace(QUICK, first_retry_s=0.001, max_retry_s=60)
    guard = GuardedBackend(fail, pool, name="away", namespace=b"n" * 32, config=config)
    assert eventually(lambda: len(tries) >= 3)
    time.sleep(0.3)
    # Waits of 1, 2, 4, ... ms: eight of them last longer. Without back-off there were hundreds.
    assert len(tries) <= 12
    assert guard.close()


def test_a_store_that_probes_well_but_serves_nothing_is_attached_ever_more_rarely(
    valve: Valve, pool: HostPool
) -> None:
    class Hollow(MemoryBackend):
        def probe(self) -> None:
            pass

    config = replace(QUICK, first_retry_s=0.001, max_retry_s=60, max_failures=1)
    guard = GuardedBackend(
        lambda: Hollow(valve, pool), pool, name="hollow", namespace=b"n" * 32, config=config
    )
    assert guard.wait_attached(5)
    valve.error = StorageUnavailable("only probes")
    until, num_failed = time.monotonic() + 0.5, 0
    while time.monotonic() < until:
        num_failed += guard.state == "attached"
        guard.exists(KEYS)
        time.sleep(0.0005)  # let the keeper have the interpreter
    assert 1 <= num_failed <= 12
    assert valve.num_opened == 1, "its own probe says that the connection is sound"
    assert guard.close()


def test_a_connection_that_stalled_and_works_again_is_kept(
    guard: GuardedBackend, valve: Valve
) -> None:
    valve.is_open.clear()
    guard.exists(KEYS)
    valve.is_open.set()
    assert guard.wait_attached(10) and valve.num_opened == 1


def test_while_a_stalled_backend_is_probed_calls_are_still_refused(
    guard: GuardedBackend, valve: Valve
) -> None:
    valve.is_open.clear()
    guard.exists(KEYS)
    arrived = valve.num_waiting
    assert eventually(lambda: valve.num_waiting > arrived)  # the probe hangs as well
    reached, refused = valve.num_waiting, guard.status()["stats"]["refused"]
    for _ in range(50):
        assert guard.exists(KEYS) is None
    assert guard.status()["stats"]["refused"] == refused + 50
    assert guard.status()["stats"]["stalls"] == 1 and valve.num_waiting - reached <= 2


@pytest.mark.parametrize("call", ["exists", "get", "set", "delete", "discard"])
@pytest.mark.parametrize("answers", [[], [True, True], None, (True,)])
def test_answers_that_are_not_one_for_each_key_are_an_error_and_none(
    valve: Valve, pool: HostPool, monkeypatch: pytest.MonkeyPatch, call: str, answers: object
) -> None:
    guard = guarded(valve, pool, replace(QUICK, deadline_s=20.0))
    assert guard.wait_attached(20)
    monkeypatch.setattr(MemoryBackend, call, lambda *_: answers)
    slots = (take(pool, 1),) if call in ("get", "set") else ()
    assert getattr(guard, call)(KEYS[:1], *slots) is None
    assert guard.status()["stats"]["errors"] == 1
    assert guard.close()
