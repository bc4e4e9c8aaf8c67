import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvloop.shared_cache.backends.directory import index_account, reconcile, ticker
from kvloop.shared_cache.backends.directory.account import NoAccount, ObjectId
from kvloop.shared_cache.backends.directory.accounts import account_of
from kvloop.shared_cache.backends.directory.index import Index, Row
from kvloop.shared_cache.backends.directory.layout import Layout
from kvloop.shared_cache.backends.directory.root import StoreRoot
from kvloop.shared_cache.backends.file.backend import FileBackend, FileConfig
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape

SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=1, head_size=8, itemsize=2)
PAGE = SHAPE.object_bytes
NAMESPACE, OTHERS = b"n" * 32, b"o" * 32
Open = Callable[..., FileBackend]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticker, "_PERIOD_S", 0.02)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "l3"


@pytest.fixture
def pool() -> HostPool:
    pool = HostPool(SHAPE, 8)
    pool.alloc(8)
    return pool


@pytest.fixture
def open_(root: Path, pool: HostPool) -> Iterator[Open]:
    """Opens stores of so many pages at most; None: without a bound."""
    opened: list[FileBackend] = []

    def open_store(num_pages: int | None = 4, namespace: bytes = NAMESPACE) -> FileBackend:
        capacity = None if num_pages is None else num_pages * PAGE
        config = FileConfig(root=str(root), capacity_bytes=capacity)
        opened.append(FileBackend(config, pool, namespace))
        return opened[-1]

    yield open_store
    for backend in opened:
        backend.close()


def keys(*numbers: int) -> list[bytes]:
    return [bytes([number]) * 32 for number in numbers]


def put(backend: FileBackend, *numbers: int) -> list[bool]:
    return backend.set(keys(*numbers), range(len(numbers)))


def held(backend: FileBackend, *numbers: int) -> list[int]:
    found = backend.exists(keys(*numbers))
    return [number for number, is_there in zip(numbers, found, strict=True) if is_there]


def index_of(root: Path) -> Path:
    return root / "kvl1" / "index.sqlite3"


def wait_until(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not what():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


def test_the_least_recently_used_page_goes(open_: Open) -> None:
    backend = open_(4)
    for number in (1, 2, 3, 4):
        put(backend, number)
    backend.get(keys(1), [0])
    assert put(backend, 5) == [True]
    assert held(backend, 1, 2, 3, 4, 5) == [1, 3, 4, 5]
    assert backend.stats()["evicted"] == 1


def test_writing_a_page_that_is_there_is_a_use_of_it(open_: Open) -> None:
    backend = open_(2)
    put(backend, 1)
    put(backend, 2)
    put(backend, 1)
    put(backend, 3)
    assert held(backend, 1, 2, 3) == [1, 3]


def test_of_a_batch_the_pages_behind_go_first(open_: Open) -> None:
    backend = open_(4)
    put(backend, 1, 2, 3, 4)
    backend.get(keys(1, 2, 3, 4), range(4))
    put(backend, 5)
    assert held(backend, 1, 2, 3, 4, 5) == [1, 2, 3, 5]


def test_of_a_batch_that_is_larger_than_the_store_the_first_pages_are_kept(open_: Open) -> None:
    backend = open_(3)
    assert put(backend, 1, 2, 3, 4, 5) == [True, True, True, False, False]
    assert held(backend, 1, 2, 3, 4, 5) == [1, 2, 3]
    assert backend.stats()["no_room"] == 2


def test_the_bound_is_on_all_namespaces_together(open_: Open) -> None:
    mine, theirs = open_(4), open_(4, OTHERS)
    put(mine, 1, 2, 3)
    put(theirs, 7, 8)
    assert len(held(mine, 1, 2, 3)) == 2 and held(theirs, 7, 8) == [7, 8]


def test_the_last_use_outlives_a_restart(open_: Open) -> None:
    first = open_(3)
    for number in (1, 2, 3):
        put(first, number)
    first.get(keys(1), [0])
    first.close()
    second = open_(3)
    put(second, 4)
    assert held(second, 1, 2, 3, 4) == [1, 3, 4]


def test_a_removed_page_gives_its_room_back(open_: Open) -> None:
    backend = open_(3)
    put(backend, 1, 2, 3)
    backend.delete(keys(2))
    put(backend, 4)
    assert held(backend, 1, 3, 4) == [1, 3, 4]
    backend.clear()
    assert backend.stats()["evicted"] == 0
    put(backend, 5, 6, 7)
    assert held(backend, 5, 6, 7) == [5, 6, 7] and backend.stats()["used_bytes"] == 3 * PAGE


def test_a_page_that_could_not_be_written_takes_no_room(
    open_: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_(2)

    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "pwritev", full)
        assert put(backend, 1, 2) == [False, False]
    assert backend.stats()["used_bytes"] == 0


def test_a_full_file_system_makes_the_oldest_go_below_the_bound_too(
    open_: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_(100)
    put(backend, 1)
    put(backend, 2)

    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "pwritev", full)
        assert put(backend, 3) == [False]
    assert held(backend, 1, 2) == [2]


def test_the_listing_tells_the_last_use_that_the_index_knows(open_: Open, root: Path) -> None:
    backend = open_(4)
    put(backend, 1, 2)
    for path in root.rglob("kvl1-*"):
        os.utime(path, (1.0, 1.0))
    backend.get(keys(1), [0])
    before = time.time() - 60
    used_at = {item.key: item.used_at for item in open_(None).objects()}
    assert all(used_at[key] is not None and used_at[key] > before for key in keys(1, 2))  # type: ignore[operator]


def test_a_lost_index_is_filled_again_from_the_files_in_the_background(
    open_: Open, root: Path
) -> None:
    first = open_(8)
    put(first, 1, 2, 3, 4)
    first.close()
    for path in index_of(root).parent.glob("index.*"):
        path.unlink()
    second = open_(5)
    put(second, 5)
    wait_until(lambda: second.stats()["used_bytes"] == 5 * PAGE)
    put(second, 6)
    assert len(held(second, 1, 2, 3, 4, 5, 6)) == 5


def test_a_spoilt_index_costs_no_page_and_is_filled_again(open_: Open, root: Path) -> None:
    first = open_(8)
    put(first, 1, 2, 3)
    first.close()
    index_of(root).write_bytes(b"spoilt" * 4000)
    second = open_(8)
    assert second.get(keys(1, 2, 3), range(3)) == [True] * 3
    put(second, 4)
    wait_until(lambda: second.stats()["used_bytes"] == 4 * PAGE)
    assert held(second, 1, 2, 3, 4) == [1, 2, 3, 4] and second.stats()["index_faults"] >= 1


def test_an_index_lost_while_it_is_used_is_begun_anew(open_: Open, root: Path) -> None:
    backend = open_(8)
    put(backend, 1, 2)
    for path in index_of(root).parent.glob("index.*"):
        path.unlink()
    wait_until(index_of(root).exists)
    put(backend, 3)
    reader = Index(index_of(root), is_made=False)
    wait_until(lambda: reader.total() == 3 * PAGE)
    reader.close()


def test_rows_whose_files_were_removed_by_hand_go(
    open_: Open, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "WALK_EVERY_S", 0.0)
    first = open_(8)
    put(first, 1, 2)
    first.close()
    index = Index(index_of(root), is_made=False)
    gone = [ObjectId(namespace, bytes([9]) * 32, 0) for namespace in (NAMESPACE, b"\x01" * 32)]
    index.adopt([Row(item, PAGE, 1.0) for item in gone])
    index.close()
    second = open_(8)
    second.get(keys(1), [0])
    wait_until(lambda: second.stats()["used_bytes"] == 2 * PAGE)


def test_a_page_that_was_put_there_by_hand_is_counted_once_it_is_read(
    open_: Open, root: Path
) -> None:
    backend = open_(8)
    put(backend, 1)
    [page] = root.rglob("kvl1-*")
    layout, key = Layout(NAMESPACE), keys(2)[0]
    copy = root / layout.path(key, 0)
    copy.parent.mkdir(parents=True)
    copy.write_bytes(page.read_bytes())
    assert backend.get([key], [0]) == [True]
    wait_until(lambda: backend.stats()["used_bytes"] == 2 * PAGE)


def test_while_the_index_is_held_writers_go_on_within_a_part_of_the_bound(
    open_: Open, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = open_(32)  # a 16th of it is two pages
    put(backend, 1)
    holder = sqlite3.connect(index_of(root), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert put(backend, 2, 3, 4) == [True, True, False]
    assert backend.get(keys(1, 2), range(2)) == [True, True]
    assert backend.stats()["index_faults"] >= 1
    holder.execute("ROLLBACK")
    holder.close()
    wait_until(lambda: backend.stats()["used_bytes"] == 3 * PAGE)


def test_a_part_of_a_large_store_is_kept_free_ahead_of_writers(
    open_: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_account, "_HEADROOM_FROM", 4)
    monkeypatch.setattr(index_account, "_HEADROOM", 4)
    backend = open_(8)
    put(backend, 1, 2, 3, 4, 5, 6, 7, 8)
    wait_until(lambda: backend.stats()["used_bytes"] == 6 * PAGE)
    assert held(backend, 1, 2, 3, 4, 5, 6, 7, 8) == [1, 2, 3, 4, 5, 6]


def test_a_store_without_a_bound_has_no_index_and_no_thread(open_: Open, root: Path) -> None:
    put(open_(None), 1)
    assert not index_of(root).exists()
    assert isinstance(account_of(StoreRoot(root), None), NoAccount)


def test_an_index_that_is_there_is_kept_up_by_those_without_a_bound_too(
    open_: Open, root: Path
) -> None:
    put(open_(8), 1, 2)
    unbounded = open_(None)
    put(unbounded, 3)
    unbounded.delete(keys(1))
    assert unbounded.stats()["used_bytes"] == 2 * PAGE
