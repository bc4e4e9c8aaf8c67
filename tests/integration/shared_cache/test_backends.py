"""What every storage backend must do, on the real stores."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvloop.shared_cache.backend import StorageBackend, leading_run
from kvloop.shared_cache.backends.mooncake.library import load_mooncake
from kvloop.shared_cache.factory import open_backend
from kvloop.shared_cache.guard import GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape, object_name, seal
from kvloop.shared_cache.page_store import PageStore

pytestmark = pytest.mark.integration

SHAPE = PageShape(
    num_layers=3, page_size=16, num_kv_heads=4, head_size=16, itemsize=2, head_groups=2
)
NUM_SLOTS = 24


class Place:
    """One store of one kind: opens backends on it, and plants raw objects in it."""

    def __init__(self, kind: str, config: dict[str, object], pool: HostPool) -> None:
        self.kind = kind
        self.config = config
        self.pool = pool
        self.namespace = secrets.token_bytes(32)
        self._opened: list[StorageBackend] = []

    def open(self, namespace: bytes | None = None) -> StorageBackend:
        backend = open_backend(self.kind, self.config, self.pool, namespace or self.namespace)
        self._opened.append(backend)
        return backend

    def page_store(self) -> PageStore:
        guard = GuardedBackend(
            lambda: open_backend(self.kind, self.config, self.pool, self.namespace),
            self.pool,
            name=self.kind,
            namespace=self.namespace,
        )
        assert guard.wait_attached(10)
        return PageStore(guard, self.pool, namespace=self.namespace, writer="decode")

    def plant(self, key: bytes, group: int, data: bytes) -> None:
        name = object_name(self.namespace, key, group)
        if self.kind == "file":
            shard = Path(str(self.config["root"]), "kvl1", self.namespace.hex(), key.hex()[:2])
            folder = shard / key.hex()[2:4]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
            return
        store = load_mooncake("store").MooncakeDistributedStore()
        address = str(self.config["master_server_address"])
        assert store.setup("127.0.0.1", "P2PHANDSHAKE", 0, 1 << 24, "tcp", "", address) == 0
        assert store.upsert(name, data) == 0
        store.close()

    def close(self) -> None:
        for backend in self._opened:
            backend.clear()
            backend.close()


@pytest.fixture(params=["file", "mooncake"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "file":
        config: dict[str, object] = {"root": str(tmp_path / "l3")}
    else:
        store = request.getfixturevalue("mooncake_store")
        config = {"master_server_address": store.address}
    place = Place(request.param, config, HostPool(SHAPE, NUM_SLOTS))
    yield place
    place.close()


@pytest.fixture
def backend(place: Place) -> StorageBackend:
    return place.open()


@pytest.fixture
def pages(place: Place) -> Iterator[PageStore]:
    store = place.page_store()
    yield store
    place.open()  # clears at the end
    assert store.close()


def new_keys(n: int) -> list[bytes]:
    return [secrets.token_bytes(32) for _ in range(n)]


def filled(pool: HostPool, n: int) -> list[int]:
    """Slots of random bytes."""
    slots = pool.alloc(n)
    assert slots is not None
    for slot in slots:
        pool.view(slot)[:] = os.urandom(SHAPE.slot_bytes)
    return slots


def payloads(pool: HostPool, slot: int) -> list[bytes]:
    views = [pool.group_view(slot, group) for group in range(SHAPE.head_groups)]
    return [bytes(view[: SHAPE.payload_bytes]) for view in views]


def test_pages_come_back_bit_for_bit(backend: StorageBackend, place: Place) -> None:
    keys, slots = new_keys(8), filled(place.pool, 8)
    assert backend.set(keys, slots) == [True] * 8
    others = filled(place.pool, 8)
    assert backend.get(keys, others) == [True] * 8
    for slot, other in zip(slots, others, strict=True):
        assert bytes(place.pool.view(slot)) == bytes(place.pool.view(other))


def test_existence_is_told_key_by_key(backend: StorageBackend, place: Place) -> None:
    keys = new_keys(5)
    backend.set([keys[0], keys[1], keys[3]], filled(place.pool, 3))
    found = backend.exists(keys)
    assert found == [True, True, False, True, False]
    assert leading_run(found) == 2


def test_missing_pages_are_misses_and_never_raise(backend: StorageBackend, place: Place) -> None:
    keys, slots = new_keys(3), filled(place.pool, 3)
    backend.set(keys[1:2], slots[1:2])
    assert backend.get(keys, slots) == [False, True, False]
    assert backend.delete(keys) == [False, True, False]
    assert backend.exists(keys) == [False] * 3


def test_empty_batches_are_answered(backend: StorageBackend) -> None:
    assert backend.exists([]) == backend.get([], []) == backend.set([], []) == []
    assert backend.delete([]) == []


def test_the_first_put_wins(backend: StorageBackend, place: Place) -> None:
    [key], [first, second, read] = new_keys(1), filled(place.pool, 3)
    assert backend.set([key], [first]) == [True]
    assert backend.set([key], [second]) == [True]
    assert backend.get([key], [read]) == [True]
    assert bytes(place.pool.view(read)) == bytes(place.pool.view(first))


def test_of_many_writers_at_once_one_wins_whole(place: Place) -> None:
    [key], slots = new_keys(1), filled(place.pool, 7)
    backends = [place.open() for _ in range(3)]
    writers = [
        threading.Thread(target=backends[i % 3].set, args=([key], [slots[i]])) for i in range(6)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert backends[0].get([key], [slots[6]]) == [True]
    for group in range(SHAPE.head_groups):
        winner = bytes(place.pool.group_view(slots[6], group))
        assert winner in [bytes(place.pool.group_view(slot, group)) for slot in slots[:6]]


def test_a_page_exists_only_with_all_its_groups(backend: StorageBackend, place: Place) -> None:
    [key], [slot] = new_keys(1), filled(place.pool, 1)
    place.plant(key, 0, os.urandom(SHAPE.object_bytes))
    assert backend.exists([key]) == [False]
    assert backend.get([key], [slot]) == [False]


def test_other_processes_see_a_page_once_it_is_set(place: Place) -> None:
    [key], [slot, read] = new_keys(1), filled(place.pool, 2)
    writer, reader = place.open(), place.open()
    assert writer.set([key], [slot]) == [True]
    assert reader.exists([key]) == [True]
    assert reader.get([key], [read]) == [True]
    assert bytes(place.pool.view(read)) == bytes(place.pool.view(slot))


def test_namespaces_are_apart_and_cleared_apart(place: Place) -> None:
    mine, theirs = place.open(), place.open(secrets.token_bytes(32))
    keys, slots = new_keys(2), filled(place.pool, 2)
    mine.set(keys, slots)
    mine.put_small("record", b"mine")
    assert theirs.exists(keys) == [False] * 2 and theirs.get_small("record") is None
    theirs.set(keys[:1], slots[:1])
    mine.clear()
    assert mine.exists(keys) == [False] * 2 and mine.get_small("record") is None
    assert theirs.exists(keys) == [True, False]


@pytest.mark.parametrize("name", ["plain", "../../../escape", "/etc/x", "a" * 999, "é\n\x00 *?"])
def test_records_have_any_name(backend: StorageBackend, name: str) -> None:
    assert backend.get_small(name) is None
    assert backend.put_small(name, b"one")
    assert backend.put_small(name, b"two \x00" * 500)
    assert backend.get_small(name) == b"two \x00" * 500


def test_an_empty_record_is_not_a_missing_one(backend: StorageBackend) -> None:
    backend.put_small("empty", b"")
    assert backend.get_small("empty") == b""


def test_stats_are_numbers(backend: StorageBackend, place: Place) -> None:
    keys, slots = new_keys(1), filled(place.pool, 1)
    before = backend.stats()
    backend.set(keys, slots)
    backend.get(keys, slots)
    after = backend.stats()
    assert set(before) == set(after) and sum(after.values()) > sum(before.values())


def test_a_saved_page_is_loaded_with_its_writer(pages: PageStore, place: Place) -> None:
    keys, slots = new_keys(3), filled(place.pool, 3)
    before = [payloads(place.pool, slot) for slot in slots]
    assert pages.save(keys, slots) == [True] * 3
    place.pool.free(slots)
    others = filled(place.pool, 3)
    assert pages.load(keys, others) == ["decode"] * 3
    assert [payloads(place.pool, slot) for slot in others] == before
    assert pages.leading_run([*keys, *new_keys(1)]) == 3


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def shortened(data: bytes) -> bytes:
    return data[:-1]


def lengthened(data: bytes) -> bytes:
    return data + b"x"


@pytest.mark.parametrize(
    ("damage", "counted"),
    [(flipped, ("fault", 1)), (shortened, ("miss", 1)), (lengthened, ("miss", 1))],
)
def test_a_damaged_page_is_a_counted_miss_and_can_be_written_again(
    pages: PageStore, place: Place, damage: Callable[[bytes], bytes], counted: tuple[str, int]
) -> None:
    [key], slots = new_keys(1), filled(place.pool, 1)
    for group in range(SHAPE.head_groups):
        view = place.pool.group_view(slots[0], group)
        seal(view, SHAPE, key, place.namespace, group, "prefill")
        place.plant(key, group, damage(bytes(view)))
    others = filled(place.pool, 1)
    assert pages.load([key], others) == [None]
    result, count = counted
    assert pages.counters.snapshot().pages["prefetch", result] == count  # type: ignore[index]
    if damage is flipped:
        assert pages.counters.snapshot().faults == {"payload": 1}
    assert pages.save([key], slots) == [True]
    assert pages.load([key], others) == ["decode"]


def test_a_page_under_another_pages_name_is_not_served(pages: PageStore, place: Place) -> None:
    [key, other], slots = new_keys(2), filled(place.pool, 1)
    for group in range(SHAPE.head_groups):
        view = place.pool.group_view(slots[0], group)
        seal(view, SHAPE, other, place.namespace, group, "prefill")
        place.plant(key, group, bytes(view))
    assert pages.load([key], filled(place.pool, 1)) == [None]
    assert pages.counters.snapshot().faults == {"key": 1}
