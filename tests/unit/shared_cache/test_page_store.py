import threading
from collections.abc import Iterator

import pytest
from guards import take
from memory_backend import MemoryBackend, Valve, eventually
from saved_pages import (
    KEYS,
    SHAPE,
    Place,
    counted,
    fill,
    holds,
    is_all_free,
    load,
    make_place,
    open_store,
    save,
    wait_until_all_free,
)

from kvloop.shared_cache import page_store
from kvloop.shared_cache.page_object import TRAILER_BYTES
from kvloop.shared_cache.page_store import PageStore
from kvloop.shared_cache.storage_errors import StorageUnavailable


@pytest.fixture
def valve() -> Valve:
    return Valve()


@pytest.fixture(params=["page_first_direct", "page_first", "layer_first"])
def place(request: pytest.FixtureRequest) -> Place:
    return make_place(request.param)


@pytest.fixture
def store(valve: Valve, place: Place) -> Iterator[PageStore]:
    store = open_store(valve, place, "prefill")
    yield store
    valve.error = None
    valve.is_open.set()
    assert store.close()


def test_pages_are_sealed_stored_checked_and_counted(store: PageStore, place: Place) -> None:
    save(store, place.pool, KEYS[:3])
    assert load(store, place.pool, KEYS[:4]) == ["prefill"] * 3 + [None]
    assert counted(store) == {
        ("write_through", "stored"): 3,
        ("prefetch", "hit"): 3,
        ("prefetch", "miss"): 1,
    }
    counts = store.counters.snapshot()
    assert counts.num_bytes["write_through", "stored"] == 3 * SHAPE.slot_bytes
    assert set(counts.seconds) == {"write_through", "prefetch"}
    assert is_all_free(place)


def test_objects_are_the_same_bytes_whatever_the_layout() -> None:
    stored = []
    for layout in ("page_first_direct", "page_first", "layer_first"):
        valve, place = Valve(), make_place(layout)
        store = open_store(valve, place, "prefill")
        save(store, place.pool, KEYS)
        stored.append({key: valve.pages[key] for key in KEYS})
        store.close()
    assert stored[0] == stored[1] == stored[2]


def test_the_writers_role_travels_with_the_page(
    store: PageStore, valve: Valve, place: Place
) -> None:
    decode = open_store(valve, place, "decode")
    save(decode, place.pool, KEYS[:1])
    save(store, place.pool, KEYS[:2])
    assert load(store, place.pool, KEYS[:2]) == ["decode", "prefill"]
    assert counted(decode) == {("offload", "stored"): 1}
    assert decode.close()


def test_a_page_that_does_not_check_is_removed_and_its_slot_stays_the_callers(
    store: PageStore, valve: Valve, place: Place
) -> None:
    save(store, place.pool, KEYS[:2])
    damaged = bytearray(valve.pages[KEYS[0]])
    damaged[SHAPE.object_bytes] ^= 1  # the second group's payload
    valve.pages[KEYS[0]] = bytes(damaged)
    slots = take(place.pool, 2)
    assert store.load(KEYS[:2], slots) == [None, "prefill"]
    assert place.pool.num_free == 10 and KEYS[0] not in valve.pages
    place.pool.free(slots)
    assert is_all_free(place)
    assert store.counters.snapshot().faults == {"payload": 1}
    assert counted(store)["prefetch", "fault"] == 1


def test_a_page_whose_scales_changed_is_not_served(
    store: PageStore, valve: Valve, place: Place
) -> None:
    save(store, place.pool, KEYS[:1])
    damaged = bytearray(valve.pages[KEYS[0]])
    damaged[SHAPE.payload_bytes + TRAILER_BYTES + 5] ^= 1
    valve.pages[KEYS[0]] = bytes(damaged)
    assert load(store, place.pool, KEYS[:1]) == [None]
    assert store.counters.snapshot().faults == {"trailer": 1}


def test_pages_of_another_namespace_are_faults(valve: Valve, place: Place) -> None:
    store = open_store(valve, place, "prefill")
    save(store, place.pool, KEYS[:1])
    pool, staging = place
    other = PageStore(store._backend, pool, namespace=b"x" * 32, writer="prefill", staging=staging)
    assert load(other, pool, KEYS[:1]) == [None]
    assert other.counters.snapshot().faults == {"namespace": 1}
    store.close()


def test_a_damaged_page_is_discarded_so_that_a_stores_other_copy_stays(
    valve: Valve, monkeypatch: pytest.MonkeyPatch
) -> None:
    discarded: list[bytes] = []
    monkeypatch.setattr(MemoryBackend, "discard", lambda _, keys: discarded.extend(keys) or [True])
    place = make_place("page_first_direct")
    store = open_store(valve, place, "prefill")
    save(store, place.pool, KEYS[:2])
    valve.pages[KEYS[0]] = bytes(len(valve.pages[KEYS[0]]))
    assert load(store, place.pool, KEYS[:2]) == [None, "prefill"]
    assert discarded == KEYS[:1] and set(valve.pages) >= set(KEYS[:2])
    store.close()


def test_pages_behind_a_hole_are_not_asked_for(
    valve: Valve, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_store, "_CALL_BYTES", 2 * SHAPE.slot_bytes)
    store = open_store(valve, place, "prefill")
    save(store, place.pool, [KEYS[0], KEYS[1], KEYS[3], KEYS[4], KEYS[5]])
    found = load(store, place.pool, KEYS)
    assert found == ["prefill", "prefill", None, "prefill", None, None]
    assert counted(store)["prefetch", "miss"] == 1
    store.close()


def test_a_large_batch_is_several_calls_and_its_answers_keep_their_order(
    valve: Valve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_store, "_PART_PAGES", 1)
    monkeypatch.setattr(page_store, "_PART_BYTES", 3 * SHAPE.slot_bytes)
    place = make_place("page_first_direct")
    store = open_store(valve, place, "decode")
    save(store, place.pool, KEYS[:3])
    begun = valve.num_waiting
    save(store, place.pool, [KEYS[0], KEYS[1], KEYS[3], KEYS[4], KEYS[5]])
    assert valve.num_waiting == begun + 2
    assert load(store, place.pool, [*KEYS[2:], bytes(32)]) == ["decode"] * 4 + [None]
    store.close()


def test_two_parts_of_a_batch_move_side_by_side(
    valve: Valve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_store, "_PART_PAGES", 1)
    monkeypatch.setattr(page_store, "_PART_BYTES", SHAPE.slot_bytes)
    place = make_place("page_first_direct")
    store = open_store(valve, place, "prefill")
    valve.is_open.clear()
    begun = valve.num_waiting
    caller = threading.Thread(target=save, args=(store, place.pool, KEYS[:2]))
    caller.start()
    try:
        assert eventually(lambda: valve.num_waiting >= begun + 2)
    finally:
        valve.is_open.set()
        caller.join()
    store.close()


def test_a_large_batch_after_close_ends_with_nothing(
    valve: Valve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_store, "_PART_PAGES", 1)
    monkeypatch.setattr(page_store, "_PART_BYTES", SHAPE.slot_bytes)
    place = make_place("page_first_direct")
    store = open_store(valve, place, "prefill")
    store.close()
    assert load(store, place.pool, KEYS[:4]) == [None] * 4


def test_long_runs_are_split_into_calls_of_a_fair_size(
    valve: Valve, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_store, "_CALL_BYTES", 4 * SHAPE.slot_bytes)
    store = open_store(valve, place, "prefill")
    save(store, place.pool, KEYS)
    assert load(store, place.pool, KEYS) == ["prefill"] * 6
    assert store.leading_run(KEYS) == 6
    store.close()


def test_a_store_that_fails_gives_misses_and_keeps_no_slot(
    store: PageStore, valve: Valve, place: Place
) -> None:
    save(store, place.pool, KEYS[:2])
    valve.error = StorageUnavailable("gone")
    assert store.exists(KEYS[:2]) == [False, False] and store.leading_run(KEYS) == 0
    assert load(store, place.pool, KEYS[:2]) == [None, None]
    slots = take(place.pool, 2)
    assert store.save(KEYS[2:4], slots) == [False, False]
    place.pool.free(slots)
    assert store.get_small("x") is None and store.put_small("x", b"y") is False
    assert is_all_free(place)
    assert counted(store)["prefetch", "unavailable"] == 2
    assert counted(store)["write_through", "unavailable"] == 2


def test_a_stalled_load_returns_at_the_deadline_and_keeps_its_slots_until_it_ends(
    store: PageStore, valve: Valve, place: Place
) -> None:
    save(store, place.pool, KEYS[:2])
    valve.is_open.clear()
    slots = take(place.pool, 2)
    assert store.load(KEYS[:2], slots) == [None, None]
    place.pool.free(slots)
    assert not store.is_attached
    assert place.objects.num_free == place.objects.num_slots - 2
    rest = take(place.objects, place.objects.num_free)
    for slot in rest:
        fill(place.objects, slot, 77)
    valve.is_open.set()
    place.objects.free(rest)
    wait_until_all_free(place)
    assert all(holds(place.objects, slot, 77) for slot in rest)


def test_a_stalled_save_keeps_its_slots_until_it_ends_and_stores_what_they_held(
    store: PageStore, valve: Valve, place: Place
) -> None:
    valve.is_open.clear()
    slots = take(place.pool, 1)
    fill(place.pool, slots[0], KEYS[0][0])
    assert store.save(KEYS[:1], slots) == [False]
    place.pool.free(slots)
    assert place.objects.num_free == place.objects.num_slots - 1
    for slot in (rest := take(place.objects, place.objects.num_free)):
        fill(place.objects, slot, 77)
    place.objects.free(rest)
    valve.is_open.set()
    wait_until_all_free(place)
    assert store._backend.wait_attached(5)
    assert load(store, place.pool, KEYS[:1]) == ["prefill"]


def test_while_the_breaker_is_open_pages_are_neither_converted_nor_hashed(
    store: PageStore, valve: Valve, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    valve.error = StorageUnavailable("gone")
    store.exists(KEYS[:1]), store.exists(KEYS[:1])
    assert not store.is_attached
    monkeypatch.setattr(page_store, "seal", None)
    monkeypatch.setattr(page_store, "copy_pages", None)
    slots = take(place.pool, 2)
    assert store.save(KEYS[:2], slots) == [False, False]
    assert store.load(KEYS[:2], slots) == [None, None]


def test_a_short_staging_pool_makes_more_calls_and_loses_no_page(valve: Valve) -> None:
    place = make_place("layer_first", num_staging=2)
    store = open_store(valve, place, "prefill")
    save(store, place.pool, KEYS)
    assert load(store, place.pool, KEYS) == ["prefill"] * 6
    assert counted(store) == {("write_through", "stored"): 6, ("prefetch", "hit"): 6}
    store.close()


def test_pages_without_a_staging_slot_are_counted_misses(
    valve: Valve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_store, "_STAGING_WAIT_S", 0.01)
    place = make_place("layer_first", num_staging=2)
    assert place.staging is not None
    store = open_store(valve, place, "prefill")
    save(store, place.pool, KEYS[:1])
    held = take(place.staging, 2)
    assert load(store, place.pool, KEYS[:3]) == [None] * 3
    slots = take(place.pool, 2)
    assert store.save(KEYS[:2], slots) == [False, False]
    assert counted(store)["prefetch", "no_slot"] == 3
    assert counted(store)["write_through", "no_slot"] == 2
    place.staging.free(held)
    assert load(store, place.pool, KEYS[:1]) == ["prefill"]
    store.close()


def test_a_staging_slot_that_comes_free_in_time_is_used(valve: Valve) -> None:
    place = make_place("page_first", num_staging=1)
    assert place.staging is not None
    store = open_store(valve, place, "prefill")
    save(store, place.pool, KEYS[:1])
    held = take(place.staging, 1)
    timer = threading.Timer(0.05, place.staging.free, [held])
    timer.start()
    assert load(store, place.pool, KEYS[:1]) == ["prefill"]
    timer.join()
    store.close()


def test_nothing_asked_is_nothing_answered(store: PageStore) -> None:
    assert store.exists([]) == [] and store.load([], []) == [] and store.save([], []) == []
    assert store.leading_run([]) == 0
