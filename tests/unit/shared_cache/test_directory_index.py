import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvloop.shared_cache.backends.directory.account import ObjectId
from kvloop.shared_cache.backends.directory.index import PENDING_S, Index, Row
from kvloop.shared_cache.backends.directory.index_file import IndexFile

A, B, C = (ObjectId(b"n" * 32, bytes([i]) * 32, 0) for i in (1, 2, 3))
OTHER = ObjectId(b"\xff" * 32, b"\xff" * 32, 0xFFFF)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.sqlite3"


@pytest.fixture
def index(path: Path) -> Iterator[Index]:
    index = Index(path, is_made=True)
    yield index
    index.close()


def names(rows: list[Row]) -> list[ObjectId]:
    return [row.object for row in rows]


def test_the_sum_follows_every_change(index: Index) -> None:
    assert index.reserve([A, B], 4096, 1.0) == 8192
    assert index.reserve([B, C], 8192, 2.0) == 4096 + 2 * 8192
    index.resize([Row(A, 100, 0.0)])
    index.adopt([Row(OTHER, 7, 1.0), Row(A, 9999, 1.0)])
    assert index.total() == 100 + 2 * 8192 + 7
    index.remove([B, B])
    index.remove_under(OTHER.namespace)
    assert index.total() == 100 + 8192


def test_the_oldest_come_first_and_a_batchs_first_goes_last(index: Index) -> None:
    index.reserve([A, B], 1, 10.0)
    index.reserve([C], 1, 5.0)
    index.confirm([A, B, C])
    assert names(index.oldest(9, 20.0)) == [C, B, A]
    index.touch([(C, 30.0), (A, 3.0)])  # what is known already to be later stays
    assert names(index.oldest(9, 20.0)) == [B, A, C]
    assert names(index.oldest(1, 20.0)) == [B]


def test_objects_that_are_being_written_are_not_among_the_oldest_until_their_writer_is_lost(
    index: Index,
) -> None:
    now = 1000.0
    index.reserve([A], 1, now)
    assert index.oldest(9, now + PENDING_S - 1) == []
    assert names(index.oldest(9, now + PENDING_S + 1)) == [A]


def test_what_was_used_since_it_was_chosen_keeps_its_row(index: Index) -> None:
    index.adopt([Row(A, 1, 5.0), Row(B, 1, 5.0)])
    chosen = index.oldest(9, 10.0)
    index.touch([(A, 6.0)])
    assert index.remove_unused(chosen) == 1
    assert index.total() == 1 and set(index.used_at([A, B])) == {A}


def test_touching_says_which_objects_are_not_known(index: Index) -> None:
    index.adopt([Row(A, 1, 5.0)])
    assert index.touch([(A, 6.0), (B, 6.0)]) == [B]


def test_rows_are_found_by_shard_and_in_order(index: Index) -> None:
    index.adopt([Row(item, 1, 1.0) for item in (C, A, OTHER, B)])
    assert names(index.under(A.namespace + A.key[:2])) == [A]
    assert index.first_from(b"") == A
    assert index.first_from(A.namespace + B.key[:2]) == B
    assert index.first_from(C.namespace + b"\xff" * 33) == OTHER
    assert names(index.under(OTHER.namespace)) == [OTHER]


def test_all_is_kept_from_one_opening_to_the_next(path: Path) -> None:
    first = Index(path, is_made=True)
    first.reserve([A, B], 10, 7.0)
    first.confirm([A])
    first.end_walk(99.0)
    first.close()
    second = Index(path, is_made=False)
    assert second.total() == 20 and second.used_at([A]) == {A: 7.0}
    assert second.walks() == (True, 99.0, 0.0)
    second.close()


def test_a_process_that_dies_in_a_transaction_leaves_nothing_of_it(path: Path) -> None:
    index = Index(path, is_made=True)
    with pytest.raises(OverflowError):
        index.adopt([Row(A, 1, 1.0), Row(B, 1 << 80, 1.0)])
    assert index.total() == 0 and index.first_from(b"") is None
    index.close()


def test_one_walker_at_a_time(path: Path) -> None:
    index, other = Index(path, is_made=True), Index(path, is_made=False)
    assert index.take_walk("one", now=100.0, for_s=60.0)
    assert not other.take_walk("two", now=120.0, for_s=60.0)
    assert index.take_walk("one", now=130.0, for_s=60.0)
    assert other.take_walk("two", now=191.0, for_s=60.0)
    index.close()
    other.close()


def test_none_is_made_unless_it_is_said(path: Path) -> None:
    file = IndexFile(path)
    assert file.get(is_made=False) is None and not path.exists()
    assert file.get(is_made=True) is not None and path.exists()
    file.close()


@pytest.mark.parametrize(
    "content", [b"no database at all" * 400, b"SQLite format 3\x00" + b"x" * 9000]
)
def test_a_spoilt_index_is_begun_anew_and_is_not_complete(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    file = IndexFile(path)
    index = file.get(is_made=True)
    assert index is not None and index.total() == 0 and not index.walks().is_complete
    file.close()


def test_an_index_of_another_version_is_begun_anew(path: Path) -> None:
    Index(path, is_made=True).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 77")
    connection.close()
    file = IndexFile(path)
    index = file.get(is_made=True)
    assert index is not None and index.total() == 0
    file.close()


def test_an_index_that_others_have_replaced_is_left_for_theirs(path: Path) -> None:
    mine, theirs = IndexFile(path), IndexFile(path)
    assert mine.get(is_made=True) is not None
    for name in path.parent.iterdir():
        name.unlink()
    index = theirs.get(is_made=True)
    assert index is not None
    index.adopt([Row(A, 5, 1.0)])
    mine.follow()
    followed = mine.get(is_made=True)
    assert followed is not None and followed.total() == 5
    mine.close()
    theirs.close()


def test_a_spoilt_index_that_others_have_replaced_already_is_not_removed_again(path: Path) -> None:
    mine, theirs = IndexFile(path), IndexFile(path)
    assert mine.get(is_made=True) is not None
    for name in path.parent.iterdir():
        name.unlink()
    index = theirs.get(is_made=True)
    assert index is not None
    index.adopt([Row(A, 5, 1.0)])
    mine.failed(sqlite3.DatabaseError("database disk image is malformed"))
    followed = mine.get(is_made=True)
    assert followed is not None and followed.total() == 5
    mine.close()
    theirs.close()


def test_an_index_that_another_holds_is_left_alone_for_a_while(path: Path) -> None:
    file = IndexFile(path)
    index = file.get(is_made=True)
    assert index is not None
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    before = time.monotonic()
    with pytest.raises(sqlite3.OperationalError) as caught:
        index.adopt([Row(A, 5, 1.0)])
    assert time.monotonic() - before < 5.0, "never waits without a deadline"
    file.failed(caught.value)
    assert file.get(is_made=True) is None
    holder.close()
    file.close()
