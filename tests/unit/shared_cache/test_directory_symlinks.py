import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvloop.shared_cache.backends.directory import safe_open
from kvloop.shared_cache.backends.directory.index_file import IndexFile
from kvloop.shared_cache.backends.directory.safe_open import open_under
from kvloop.shared_cache.backends.file.backend import FileBackend, FileConfig
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape, object_name

SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=1, head_size=8, itemsize=2)
NAMESPACE = b"n" * 32
KEY = bytes.fromhex("ab12") + b"k" * 30


@pytest.fixture(params=["openat2", "part by part"], autouse=True)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the system call, and as a sandbox that lacks it."""
    if request.param != "openat2":
        monkeypatch.setattr(safe_open, "_openat2", lambda *args: None)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that nothing may be read from or written to."""
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


@pytest.fixture
def pool() -> HostPool:
    pool = HostPool(SHAPE, 2)
    pool.alloc(2)
    pool.array[:] = 7
    return pool


@pytest.fixture
def backend(tmp_path: Path, pool: HostPool) -> Iterator[FileBackend]:
    backend = FileBackend(FileConfig(root=str(tmp_path / "l3")), pool, NAMESPACE)
    backend.set([KEY], [0])
    backend.put_small("record", b"mine")
    yield backend
    backend.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "l3" / "kvl1" / NAMESPACE.hex()


def replaced_by_link(path: Path, outside: Path) -> None:
    """Move a part of the store away, and put a symlink to it in its place."""
    path.rename(outside / path.name)
    path.symlink_to(outside / path.name)


@pytest.mark.parametrize("part", ["", "a", "a/b"])
def test_a_directory_that_is_a_symlink_is_not_entered(
    backend: FileBackend, home: Path, outside: Path, part: str
) -> None:
    replaced_by_link(home / part, outside)
    before = sorted(path.name for path in outside.rglob("*"))
    assert backend.exists([KEY]) == [False] and backend.get([KEY], [1]) == [False]
    other = KEY[:-1] + b"o"
    assert backend.set([other], [0]) == [False]
    assert backend.delete([KEY]) == [False]
    backend.clear()
    assert [item.key for item in backend.objects() if item.key] == []
    assert sorted(path.name for path in outside.rglob("*")) == before
    assert backend.stats()["refused"] >= 4


def test_a_page_that_is_a_symlink_is_missed_and_replaced(
    backend: FileBackend, home: Path, outside: Path, pool: HostPool
) -> None:
    page = home / "a" / "b" / object_name(NAMESPACE, KEY, 0)
    replaced_by_link(page, outside)
    pool.view(0)[:] = b"\x09" * SHAPE.slot_bytes
    assert backend.exists([KEY]) == [False] and backend.get([KEY], [1]) == [False]
    assert backend.stats()["refused"] == 2
    assert backend.set([KEY], [0]) == [True] and backend.get([KEY], [1]) == [True]
    assert not page.is_symlink()
    assert (outside / page.name).read_bytes() == b"\x07" * SHAPE.object_bytes


def test_a_record_that_is_a_symlink_is_missed_and_replaced(
    backend: FileBackend, home: Path, outside: Path
) -> None:
    [record] = (home / "small").iterdir()
    replaced_by_link(record, outside)
    assert backend.get_small("record") is None
    assert backend.stats()["refused"] == 1
    assert backend.put_small("record", b"new") and backend.get_small("record") == b"new"
    assert (outside / record.name).read_bytes() == b"mine"


def test_deleting_a_page_that_is_a_symlink_removes_the_link_only(
    backend: FileBackend, home: Path, outside: Path
) -> None:
    page = home / "a" / "b" / object_name(NAMESPACE, KEY, 0)
    replaced_by_link(page, outside)
    assert backend.delete([KEY]) == [True]
    assert not page.is_symlink() and (outside / page.name).exists()


def test_a_fifo_in_the_place_of_a_page_does_not_hold_anyone_up(
    backend: FileBackend, home: Path
) -> None:
    page = home / "a" / "b" / object_name(NAMESPACE, KEY, 0)
    page.unlink()
    os.mkfifo(page)
    assert backend.exists([KEY]) == [False] and backend.get([KEY], [1]) == [False]
    assert backend.set([KEY], [0]) == [True] and backend.get([KEY], [1]) == [True]


@pytest.mark.parametrize("name", ["index.sqlite3", "index.sqlite3-wal"])
def test_an_index_that_is_a_symlink_is_not_opened(tmp_path: Path, outside: Path, name: str) -> None:
    (tmp_path / name).symlink_to(outside / name)
    assert IndexFile(tmp_path / "index.sqlite3").get(is_made=True) is None
    assert list(outside.iterdir()) == []


def test_a_path_without_symlinks_is_opened(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"x")
    folder = os.open(tmp_path, os.O_PATH)
    fd = open_under(folder, "a/b/file", os.O_RDONLY)
    assert os.read(fd, 1) == b"x" and not os.get_inheritable(fd)
    with pytest.raises(OSError) as caught:
        open_under(folder, "a/missing/file", os.O_RDONLY)
    assert caught.value.errno == errno.ENOENT
    os.close(fd)
    os.close(folder)
