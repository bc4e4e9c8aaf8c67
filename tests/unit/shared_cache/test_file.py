import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kvloop.shared_cache.backends.file.backend import FileBackend, FileConfig
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape, object_name
from kvloop.shared_cache.storage_errors import StorageUnavailable

SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=1, head_size=8, itemsize=2)
NAMESPACE = b"n" * 32
KEY = bytes.fromhex("ab12") + b"k" * 30


@pytest.fixture
def pool() -> HostPool:
    pool = HostPool(SHAPE, 4)
    pool.alloc(4)
    pool.array[:] = 7
    return pool


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "kvl1" / NAMESPACE.hex()


@pytest.fixture
def backend(tmp_path: Path, pool: HostPool) -> FileBackend:
    return FileBackend(FileConfig(root=str(tmp_path)), pool, NAMESPACE)


def page_file(home: Path) -> Path:
    return home / "ab" / "12" / object_name(NAMESPACE, KEY, 0)


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def failing(code: int) -> Callable[..., int]:
    def fail(*args: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_page_lies_in_its_shard_under_its_name(backend: FileBackend, home: Path) -> None:
    backend.set([KEY], [0])
    assert files(home) == [page_file(home)]
    assert page_file(home).read_bytes() == b"\x07" * SHAPE.object_bytes


def test_records_stay_under_the_root(backend: FileBackend, tmp_path: Path, home: Path) -> None:
    backend.put_small("../../../../outside", b"x")
    assert [path.parent for path in files(tmp_path)] == [home / "small"]


def test_a_writer_that_dies_leaves_nothing_visible(
    backend: FileBackend, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EIO))
    monkeypatch.setattr(Path, "unlink", lambda path: None)
    with pytest.raises(StorageUnavailable):
        backend.set([KEY], [0])
    assert backend.exists([KEY]) == [False]
    assert [path.parent.name for path in files(home)] == ["tmp"]


def test_old_leftovers_are_swept_and_young_ones_kept(
    backend: FileBackend, tmp_path: Path, home: Path, pool: HostPool
) -> None:
    for name in ("old", "young"):
        (home / "tmp" / name).write_bytes(b"half")
    os.utime(home / "tmp" / "old", (time.time() - 7200,) * 2)
    FileBackend(FileConfig(root=str(tmp_path)), pool, NAMESPACE)
    assert [path.name for path in files(home)] == ["young"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_error_but_counted(
    backend: FileBackend, home: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "pwritev", failing(code))
    assert backend.set([KEY], [0]) == [False]
    assert backend.put_small("x", b"x") is False
    assert backend.stats()["no_room"] == 2 and files(home) == []


def test_an_io_error_is_the_stores_fault(
    backend: FileBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.set([KEY], [0])
    monkeypatch.setattr(os, "preadv", failing(errno.EIO))
    with pytest.raises(StorageUnavailable, match="Input/output error"):
        backend.get([KEY], [1])


def test_a_truncated_file_does_not_exist_and_is_replaced(backend: FileBackend, home: Path) -> None:
    backend.set([KEY], [0])
    os.truncate(page_file(home), 100)
    assert backend.exists([KEY]) == [False] and backend.get([KEY], [1]) == [False]
    assert backend.set([KEY], [0]) == [True]
    assert backend.get([KEY], [1]) == [True]
    assert backend.stats()["repaired"] == 1


def test_without_hard_links_pages_are_renamed_into_place(
    backend: FileBackend, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    assert backend.set([KEY], [0]) == [True]
    assert files(home) == [page_file(home)]


def test_a_root_that_vanished_is_not_made_anew(backend: FileBackend, home: Path) -> None:
    home.rename(home.with_name("elsewhere"))
    with pytest.raises(StorageUnavailable):
        backend.set([KEY], [0])
    assert not home.exists()


def test_a_failed_batch_ends_before_its_error_is_raised(
    backend: FileBackend, pool: HostPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [bytes([i]) * 32 for i in range(4)]
    backend.set(keys, range(4))
    read, num_running = os.preadv, 0

    def slow(fd: int, views: list[memoryview], offset: int) -> int:
        nonlocal num_running
        if os.readlink(f"/proc/self/fd/{fd}").endswith(object_name(NAMESPACE, keys[0], 0)):
            raise OSError(errno.EIO, "bad block")
        num_running += 1
        time.sleep(0.1)
        num_running -= 1
        return read(fd, views, offset)

    monkeypatch.setattr(os, "preadv", slow)
    with pytest.raises(StorageUnavailable):
        backend.get(keys, range(4))
    assert num_running == 0
