import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvloop.shared_cache.backends.directory import safe_open
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
    return tmp_path / "l3" / "kvl1" / NAMESPACE.hex()


@pytest.fixture
def backend(tmp_path: Path, pool: HostPool) -> Iterator[FileBackend]:
    backend = FileBackend(FileConfig(root=str(tmp_path / "l3")), pool, NAMESPACE)
    yield backend
    backend.close()


@pytest.fixture(params=["anonymous", "named"])
def drafts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With files that have no name before they are published, and where there are none."""
    if request.param == "named":
        refuse_anonymous_files(monkeypatch)
    return str(request.param)


def refuse_anonymous_files(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def open_(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, flags, *rest, **more)

    real_under = safe_open._openat2

    def open_under(directory: int, path: str, flags: int, mode: int) -> int | None:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real_under(directory, path, flags, mode)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(safe_open, "_openat2", open_under)


def page_file(home: Path) -> Path:
    return home / "a" / "b" / object_name(NAMESPACE, KEY, 0)


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def failing(code: int) -> Callable[..., int]:
    def fail(*args: object, **more: object) -> int:
        raise OSError(code, os.strerror(code))

    return fail


def num_open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_page_lies_in_its_shard_under_its_name(backend: FileBackend, home: Path) -> None:
    backend.set([KEY], [0])
    assert files(home) == [page_file(home)]
    assert page_file(home).read_bytes() == b"\x07" * SHAPE.object_bytes


def test_opening_makes_nothing_beneath_the_root(backend: FileBackend, tmp_path: Path) -> None:
    assert backend.exists([KEY]) == [False]
    assert backend.get_small("x") is None and list(backend.objects()) == []
    assert list((tmp_path / "l3").iterdir()) == []


def test_records_stay_under_the_root(backend: FileBackend, tmp_path: Path, home: Path) -> None:
    backend.put_small("../../../../outside", b"x")
    assert [path.parent for path in files(tmp_path)] == [home / "small"]


def test_what_is_not_published_is_not_visible_and_does_not_stay(
    drafts: str, backend: FileBackend, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EIO))
    with pytest.raises(StorageUnavailable):
        backend.set([KEY], [0])
    assert backend.exists([KEY]) == [False] and files(home) == []


def test_a_crashed_writer_leaves_files_among_the_drafts_only_and_only_where_they_need_names(
    drafts: str, backend: FileBackend, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EIO))
    monkeypatch.setattr(os, "unlink", failing(errno.EIO))  # the process is no more
    with pytest.raises(StorageUnavailable):
        backend.set([KEY], [0])
    assert [path.parent.name for path in files(home)] == ["tmp"] * (drafts == "named")
    assert backend.exists([KEY]) == [False]


def test_old_leftovers_are_swept_by_the_next_writer_and_young_ones_kept(
    backend: FileBackend, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_anonymous_files(monkeypatch)
    (home / "tmp").mkdir(parents=True)
    for name in ("old", "young"):
        (home / "tmp" / name).write_bytes(b"half")
    os.utime(home / "tmp" / "old", (time.time() - 7200,) * 2)
    backend.set([KEY], [0])
    assert sorted(path.name for path in files(home)) == sorted(["young", page_file(home).name])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_error_but_counted(
    drafts: str,
    backend: FileBackend,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    for call in ("pwritev", "pwrite"):
        monkeypatch.setattr(os, call, failing(code))
    assert backend.set([KEY], [0]) == [False]
    assert backend.put_small("x", b"x") is False
    assert backend.stats()["no_room"] == 2 and files(home) == []


def test_a_file_system_that_is_read_only_is_read_on_and_counted(
    backend: FileBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.set([KEY], [0])
    monkeypatch.setattr(os, "pwritev", failing(errno.EROFS))
    assert backend.set([b"o" * 32], [0]) == [False]
    assert backend.get([KEY], [1]) == [True]
    assert backend.stats()["read_only"] == 1


def test_an_io_error_is_the_stores_fault(
    backend: FileBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.set([KEY], [0])
    monkeypatch.setattr(os, "preadv", failing(errno.EIO))
    with pytest.raises(StorageUnavailable, match="Input/output error"):
        backend.get([KEY], [1])


@pytest.mark.parametrize("length", [0, 100, SHAPE.object_bytes + 1])
def test_a_file_of_another_length_does_not_exist_and_is_replaced(
    drafts: str, backend: FileBackend, home: Path, length: int
) -> None:
    backend.set([KEY], [0])
    os.truncate(page_file(home), length)
    assert backend.exists([KEY]) == [False] and backend.get([KEY], [1]) == [False]
    assert backend.set([KEY], [0]) == [True]
    assert backend.get([KEY], [1]) == [True]
    assert backend.stats()["repaired"] == 1 and backend.stats()["short_reads"] == 1
    assert files(home) == [page_file(home)]


def test_without_hard_links_pages_are_renamed_into_place(
    backend: FileBackend, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_anonymous_files(monkeypatch)
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    assert backend.set([KEY], [0]) == [True]
    assert files(home) == [page_file(home)]


@pytest.mark.parametrize("use", ["exists", "get", "set", "delete", "get_small", "clear", "probe"])
def test_a_root_that_vanished_is_unavailable_and_not_made_anew(
    backend: FileBackend, tmp_path: Path, use: str
) -> None:
    backend.set([KEY], [0])
    uses: dict[str, Callable[[], object]] = {
        "exists": lambda: backend.exists([KEY]),
        "get": lambda: backend.get([KEY], [1]),
        "set": lambda: backend.set([b"o" * 32], [1]),
        "delete": lambda: backend.delete([KEY]),
        "get_small": lambda: backend.get_small("x"),
        "clear": backend.clear,
        "probe": backend.probe,
    }
    (tmp_path / "l3").rename(tmp_path / "elsewhere")
    with pytest.raises(StorageUnavailable, match="'file'"):
        uses[use]()
    assert not (tmp_path / "l3").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "l3")
    assert backend.exists([KEY]) == [True], "it works again once it is back"


def test_a_page_that_cannot_be_read_does_not_spoil_the_batch_and_is_counted(
    backend: FileBackend, pool: HostPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [bytes([i]) * 32 for i in range(4)]
    backend.set(keys, range(4))
    break_reads_of(object_name(NAMESPACE, keys[0], 0), monkeypatch)
    assert backend.get(keys, range(4)) == [False, True, True, True]
    assert backend.stats()["io_errors"] == 1


def test_a_batch_ends_only_after_all_its_reads(
    backend: FileBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [bytes([i]) * 32 for i in range(4)]
    backend.set(keys, range(4))
    running = break_reads_of(object_name(NAMESPACE, keys[0], 0), monkeypatch, pause_s=0.1)
    assert backend.get(keys, range(4)) == [False, True, True, True]
    assert running() == 0


def break_reads_of(
    name: str, monkeypatch: pytest.MonkeyPatch, pause_s: float = 0.0
) -> Callable[[], int]:
    """One file has a bad block; the others are slow. Returns how many reads are running."""
    read, lock, num_running = os.preadv, threading.Lock(), 0

    def slow(fd: int, views: list[memoryview], offset: int) -> int:
        nonlocal num_running
        if os.readlink(f"/proc/self/fd/{fd}").endswith(name):
            raise OSError(errno.EIO, "bad block")
        with lock:
            num_running += 1
        time.sleep(pause_s)
        with lock:
            num_running -= 1
        return read(fd, views, offset)

    monkeypatch.setattr(os, "preadv", slow)
    return lambda: num_running


def test_no_descriptor_stays_open_whatever_happens(
    drafts: str, backend: FileBackend, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.set([KEY], [0])
    before = num_open_files()
    keys = [bytes([i]) * 32 for i in range(4)]
    backend.set(keys, range(4))
    backend.get([*keys, b"o" * 32], [0, 1, 2, 3, 0])
    backend.delete(keys[:1])
    list(backend.objects())
    os.truncate(page_file(home), 100)
    backend.get([KEY], [1])
    with monkeypatch.context() as broken:
        broken.setattr(os, "link", failing(errno.EIO))
        with pytest.raises(StorageUnavailable):
            backend.set([b"x" * 32], [0])
    next(backend.objects())
    assert num_open_files() == before


def test_a_batch_opens_no_more_files_than_its_rounds_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = HostPool(SHAPE, 200)
    slots = pool.alloc(200)
    assert slots is not None
    backend = FileBackend(FileConfig(root=str(tmp_path)), pool, NAMESPACE)
    keys = [i.to_bytes(2, "big") * 16 for i in range(200)]
    assert all(backend.set(keys, slots))
    before, most, read = num_open_files(), 0, os.preadv

    def counted(*args: Any) -> int:
        nonlocal most
        most = max(most, num_open_files())
        return read(*args)

    monkeypatch.setattr(os, "preadv", counted)
    assert all(backend.get(keys, slots))
    backend.close()
    assert most - before <= 64 + 8
