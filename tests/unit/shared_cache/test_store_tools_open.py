"""A store as a tool opens it: looked at without a trace, and never waited for too long."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from shelf_store import SHELVES, Shelf, address

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.manifest import RECORD, Manifest, encode_manifest
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.storage_errors import StorageUnavailable, StorageUnsupported
from kvloop.shared_cache.store_tools import open_store
from kvloop.shared_cache.store_tools.address import StoreAddress
from kvloop.shared_cache.store_tools.open_store import OpenStore, all_ended
from kvloop.shared_cache.store_tools.reading import staging_pool
from kvloop.shared_cache.store_tools.survey import clear_namespace, look, read_manifest

SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=2, head_size=8, itemsize=2, head_groups=2)
NS, OTHER = b"n" * 32, b"o" * 32
KEYS = [bytes([i]) * 32 for i in range(100)]
MANIFEST = Manifest(namespace=NS.hex(), shape=SHAPE, model="m")
DEADLINE_S = 5.0


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    yield
    for shelf in SHELVES.values():
        for event in shelf.stalls.values():
            event.set()
    SHELVES.clear()


@pytest.fixture
def shelf() -> Shelf:
    return SHELVES["a"]


def opened(store: str, pool: HostPool | None = None, deadline_s: float = DEADLINE_S) -> OpenStore:
    return OpenStore(address(store), pool or staging_pool(SHAPE), NS, deadline_s)


def test_a_look_lists_all_namespaces_and_writes_nothing(shelf: Shelf) -> None:
    shelf.plant(NS, SHAPE, KEYS[0])
    shelf.plant(OTHER, SHAPE, KEYS[0])
    survey = look("", address("a"), DEADLINE_S)
    assert set(survey.namespaces) == {NS, OTHER} and not shelf.records
    assert survey.stats == {"gets": 0.0}


def test_a_listing_longer_than_one_piece_is_whole(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_store, "_LISTED_AT_ONCE", 3)
    for key in KEYS[:10]:
        shelf.plant(NS, SHAPE, key)
    assert len(look("", address("a"), DEADLINE_S).namespaces[NS].pages) == 10


def test_a_store_that_cannot_list_says_so(shelf: Shelf) -> None:
    shelf.can_list = False
    with pytest.raises(StorageUnsupported, match="cannot list"):
        look("", address("a"), DEADLINE_S)


@pytest.mark.parametrize(
    ("backend", "fields"),
    [
        ("file", {"root": "{}"}),
        ("nixl", {"plugin": "POSIX", "root": "{}"}),
        ("aibrix", {"l2_cache_backend": "SHFS", "root": "{}"}),
        ("aibrix", {"l2_cache_backend": "ROCKSDB", "root": "{}"}),
        ("hf3fs", {"mount": "{}", "require_mount": False}),
        ("hf3fs", {"mount": ".", "directory": "{}", "require_mount": False}),
        ("hf3fs", {"mount": ".", "require_mount": False}),
    ],
)
def test_a_directory_that_is_not_there_is_not_made_by_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, fields: dict[str, object]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = {name: "none" if value == "{}" else value for name, value in fields.items()}
    store = StoreAddress(backend=backend, config=config)
    with pytest.raises(StorageUnavailable, match="no such directory"):
        look("", store, DEADLINE_S)
    with pytest.raises(StorageUnavailable, match="no such directory"):
        read_manifest(store, NS, DEADLINE_S)
    with pytest.raises(StorageUnavailable, match="no such directory"):
        clear_namespace(store, NS, DEADLINE_S)
    assert not list(tmp_path.iterdir())


def test_the_manifest_of_a_namespace_is_found(shelf: Shelf) -> None:
    assert read_manifest(address("a"), NS, DEADLINE_S) is None
    shelf.records[NS, RECORD] = encode_manifest(MANIFEST)
    assert read_manifest(address("a"), NS, DEADLINE_S) == MANIFEST
    assert read_manifest(address("a"), OTHER, DEADLINE_S) is None


@pytest.mark.parametrize("call", ["open", "exists", "objects"])
def test_a_store_that_hangs_is_an_error_by_the_deadline(shelf: Shelf, call: str) -> None:
    shelf.plant(NS, SHAPE, KEYS[0])
    shelf.stalls[call] = released = threading.Event()
    with (
        pytest.raises(StorageUnavailable, match=r"did not answer within 0\.1 s"),
        opened("a", deadline_s=0.1) as store,
    ):
        store.exists(KEYS[:1])
        list(store.objects())
    assert not all_ended(0)
    released.set()
    assert all_ended(5)


def test_a_store_is_closed_before_the_next_is_opened(shelf: Shelf) -> None:
    for number in range(1, 6):
        with opened("a") as store:
            store.exists(KEYS[:1])
        assert shelf.num_closed == number


def test_a_store_whose_closing_hangs_is_let_go_and_remembered(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_store, "_CLOSE_S", 0.05)
    shelf.stalls["close"] = released = threading.Event()
    with opened("a") as store:
        store.exists(KEYS[:1])
    assert not all_ended(0)
    released.set()
    assert all_ended(5)


def test_errors_of_the_store_come_in_its_own_words(shelf: Shelf) -> None:
    shelf.fails.add("exists")
    with opened("a") as store, pytest.raises(StorageUnavailable, match="exists fails"):
        store.exists(KEYS[:1])
    assert all_ended(5)


def test_a_wrong_config_is_told_before_anything_is_opened() -> None:
    with pytest.raises(ConfigError, match="unknown storage backend"):
        OpenStore(StoreAddress(backend="none"), staging_pool(SHAPE), NS, DEADLINE_S)


def test_opening_leaves_no_record_behind(shelf: Shelf) -> None:
    with opened("a") as store:
        store.exists(KEYS[:1])
    assert not shelf.records
