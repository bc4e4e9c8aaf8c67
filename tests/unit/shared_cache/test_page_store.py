import threading
from collections.abc import Iterator

import pytest
from memory_backend import MemoryBackend, Valve

from kvloop.shared_cache import page_store
from kvloop.shared_cache.guard import GuardConfig, GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.page_store import LoadedPage, PageStore
from kvloop.shared_cache.storage_errors import StorageUnavailable
from kvloop.shared_cache.wire import Role

SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=2, head_size=8, itemsize=2, head_groups=2)
NAMESPACE = b"n" * 32
KEYS = [bytes([i]) * 32 for i in range(6)]
MISS = LoadedPage(None, None)


@pytest.fixture
def valve() -> Valve:
    return Valve()


@pytest.fixture
def pool() -> HostPool:
    return HostPool(SHAPE, 6)


def open_store(valve: Valve, pool: HostPool, writer: Role) -> PageStore:
    guard = GuardedBackend(
        lambda: MemoryBackend(valve, pool),
        pool,
        name="memory",
        namespace=NAMESPACE,
        config=GuardConfig(deadline_s=0.1, first_retry_s=0.02, max_retry_s=0.1),
    )
    assert guard.wait_attached(5)
    return PageStore(guard, pool, namespace=NAMESPACE, writer=writer)


@pytest.fixture
def store(valve: Valve, pool: HostPool) -> Iterator[PageStore]:
    store = open_store(valve, pool, "prefill")
    yield store
    valve.error = None
    valve.is_open.set()
    assert store.close()


def save(store: PageStore, pool: HostPool, keys: list[bytes]) -> None:
    slots = pool.alloc(len(keys))
    assert slots is not None
    for key, slot in zip(keys, slots, strict=True):
        pool.view(slot)[:] = key[:1] * SHAPE.slot_bytes
    assert store.save(keys, slots) == [True] * len(keys)
    pool.free(slots)


def counted(store: PageStore) -> dict[tuple[str, str], int]:
    return {key: n for key, n in store.counters.snapshot().pages.items() if n}


def test_pages_are_sealed_stored_checked_and_counted(store: PageStore, pool: HostPool) -> None:
    save(store, pool, KEYS[:3])
    pages = store.load(KEYS[:4])
    assert [page.writer for page in pages] == ["prefill"] * 3 + [None]
    for key, page in zip(KEYS[:3], pages[:3], strict=True):
        assert page.slot is not None
        assert bytes(pool.view(page.slot)[: SHAPE.payload_bytes]) == key[:1] * SHAPE.payload_bytes
    assert pool.num_free == 3
    assert counted(store) == {
        ("write_through", "stored"): 3,
        ("prefetch", "hit"): 3,
        ("prefetch", "miss"): 1,
    }
    counts = store.counters.snapshot()
    assert counts.num_bytes["write_through", "stored"] == 3 * SHAPE.slot_bytes
    assert set(counts.seconds) == {"write_through", "prefetch"}


def test_the_writers_role_travels_with_the_page(
    store: PageStore, valve: Valve, pool: HostPool
) -> None:
    decode = open_store(valve, pool, "decode")
    save(decode, pool, KEYS[:1])
    save(store, pool, KEYS[:2])
    assert [page.writer for page in store.load(KEYS[:2])] == ["decode", "prefill"]
    assert counted(decode) == {("offload", "stored"): 1}
    assert decode.close()


def test_a_page_that_does_not_check_is_removed_and_its_slot_freed(
    store: PageStore, valve: Valve, pool: HostPool
) -> None:
    save(store, pool, KEYS[:2])
    damaged = bytearray(valve.pages[KEYS[0]])
    damaged[SHAPE.object_bytes] ^= 1  # the second group's payload
    valve.pages[KEYS[0]] = bytes(damaged)
    pages = store.load(KEYS[:2])
    assert pages[0] == MISS and pages[1].writer == "prefill"
    assert pool.num_free == 5 and KEYS[0] not in valve.pages
    assert store.counters.snapshot().faults == {"payload": 1}
    assert counted(store)["prefetch", "fault"] == 1


def test_pages_of_another_namespace_are_faults(valve: Valve, pool: HostPool) -> None:
    store = open_store(valve, pool, "prefill")
    save(store, pool, KEYS[:1])
    other = PageStore(store._backend, pool, namespace=b"x" * 32, writer="prefill")
    assert other.load(KEYS[:1]) == [MISS]
    assert other.counters.snapshot().faults == {"namespace": 1}
    store.close()


def test_a_short_pool_cuts_the_run_and_says_so(store: PageStore, pool: HostPool) -> None:
    save(store, pool, KEYS)
    pool.alloc(4)
    pages = store.load(KEYS)
    assert [page.writer for page in pages] == ["prefill"] * 2 + [None] * 4
    assert counted(store)["prefetch", "no_slot"] == 4


def test_without_any_slot_nothing_is_asked_for(store: PageStore, pool: HostPool) -> None:
    save(store, pool, KEYS[:1])
    pool.alloc(6)
    assert store.load(KEYS[:1]) == [MISS]


def test_pages_behind_a_hole_are_not_asked_for(
    valve: Valve, pool: HostPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_store, "_CALL_BYTES", 2 * SHAPE.slot_bytes)
    store = open_store(valve, pool, "prefill")
    save(store, pool, [KEYS[0], KEYS[1], KEYS[3], KEYS[4], KEYS[5]])
    pages = store.load(KEYS)
    assert [page.writer for page in pages] == ["prefill", "prefill", None, "prefill", None, None]
    assert counted(store)["prefetch", "miss"] == 1
    store.close()


def test_long_runs_are_split_into_calls_of_a_fair_size(
    valve: Valve, pool: HostPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_store, "_CALL_BYTES", 4 * SHAPE.slot_bytes)
    store = open_store(valve, pool, "prefill")
    save(store, pool, KEYS)
    assert all(page.writer == "prefill" for page in store.load(KEYS))
    assert store.leading_run(KEYS) == 6
    store.close()


def test_a_store_that_fails_gives_misses_and_keeps_no_slot(
    store: PageStore, valve: Valve, pool: HostPool
) -> None:
    save(store, pool, KEYS[:2])
    valve.error = StorageUnavailable("gone")
    assert store.exists(KEYS[:2]) == [False, False] and store.leading_run(KEYS) == 0
    assert store.load(KEYS[:2]) == [MISS, MISS]
    slots = pool.alloc(2)
    assert slots is not None and store.save(KEYS[2:4], slots) == [False, False]
    pool.free(slots)
    assert store.get_small("x") is None and store.put_small("x", b"y") is False
    assert pool.num_free == 6
    assert counted(store)["prefetch", "unavailable"] == 2
    assert counted(store)["write_through", "unavailable"] == 2


def test_a_stalled_load_returns_at_the_deadline_and_frees_its_slots_when_it_ends(
    store: PageStore, valve: Valve, pool: HostPool
) -> None:
    valve.is_open.clear()
    assert store.load(KEYS[:2]) == [MISS, MISS]
    assert not store.is_attached and pool.num_free == 4
    valve.is_open.set()
    until = threading.Event()
    for _ in range(400):
        if pool.num_free == 6:
            break
        until.wait(0.01)
    assert pool.num_free == 6


def test_nothing_asked_is_nothing_answered(store: PageStore) -> None:
    assert store.exists([]) == [] and store.load([]) == [] and store.save([], []) == []
    assert store.leading_run([]) == 0
