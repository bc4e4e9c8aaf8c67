import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.backends.directory import safe_open
from kvloop.shared_cache.backends.file import backend as file_backend
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.storage_errors import StorageUnavailable

SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=1, head_size=8, itemsize=2)
NAMESPACE = b"n" * 32
KEY = b"k" * 32


@pytest.fixture
def pool() -> HostPool:
    pool = HostPool(SHAPE, 4)
    pool.alloc(4)
    return pool


class Flags:
    """The flags that page files were opened with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_direct_refused = False
        self.last = 0
        self._open, self._open_under = os.open, safe_open._openat2
        monkeypatch.setattr(os, "open", self._watch)
        monkeypatch.setattr(safe_open, "_openat2", self._watch_under)

    def _watch(self, path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if self.is_direct_refused and flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            self.last = flags
        return self._open(path, flags, *rest, **more)

    def _watch_under(self, directory: int, path: str, flags: int, mode: int) -> int | None:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            self.last = flags
        return self._open_under(directory, path, flags, mode)


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> Iterator[Flags]:
    yield Flags(monkeypatch)


def opened(root: Path, pool: HostPool, **fields: object) -> StorageBackend:
    return backend_opener("file", {"root": str(root), **fields}, pool, NAMESPACE)()


def written_with(backend: StorageBackend, flags: Flags) -> int:
    assert backend.set([KEY], [0]) == [True] and backend.get([KEY], [1]) == [True]
    backend.close()
    return flags.last


def takes_direct(folder: Path) -> bool:
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_DIRECT))
    except OSError:
        return False
    return True


def test_pages_go_past_the_page_cache_where_the_file_system_can(
    tmp_path: Path, pool: HostPool, flags: Flags
) -> None:
    is_able, backend = takes_direct(tmp_path), opened(tmp_path, pool)
    assert backend.stats()["is_direct"] == is_able
    assert bool(written_with(backend, flags) & os.O_DIRECT) == is_able


def test_pages_go_through_the_page_cache_where_the_file_system_cannot(
    tmp_path: Path, pool: HostPool, flags: Flags
) -> None:
    flags.is_direct_refused = True
    assert not written_with(opened(tmp_path, pool), flags) & os.O_DIRECT


def test_direct_can_be_turned_off(tmp_path: Path, pool: HostPool, flags: Flags) -> None:
    assert not written_with(opened(tmp_path, pool, direct="off"), flags) & os.O_DIRECT


def test_direct_that_is_required_is_not_quietly_left_out(
    tmp_path: Path, pool: HostPool, flags: Flags
) -> None:
    flags.is_direct_refused = True
    with pytest.raises(StorageUnavailable, match="direct is 'on', but"):
        opened(tmp_path, pool, direct="on")


def test_the_probe_leaves_nothing_even_where_files_need_names(
    tmp_path: Path, pool: HostPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def named_only(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", named_only)
    opened(tmp_path, pool).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("num_threads", [1, 3])
def test_as_many_files_are_moved_at_once_as_threads_are_asked_for(
    tmp_path: Path, pool: HostPool, monkeypatch: pytest.MonkeyPatch, num_threads: int
) -> None:
    asked: list[int] = []
    real = file_backend.ThreadIO

    def counted(*args: Any, num_threads: int, **more: Any) -> Any:
        asked.append(num_threads)
        return real(*args, num_threads=num_threads, **more)

    monkeypatch.setattr(file_backend, "ThreadIO", counted)
    opened(tmp_path, pool, num_threads=num_threads).close()
    assert asked == [num_threads]


def test_a_mount_point_with_nothing_mounted_is_unavailable_and_nothing_is_made(
    tmp_path: Path, pool: HostPool
) -> None:
    with pytest.raises(StorageUnavailable, match="nothing is mounted there"):
        opened(tmp_path / "mnt" / "l3", pool, mount_point=str(tmp_path / "mnt"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"root": "a/../b"}, "root: 'a/../b' must not contain '..'"),
        ({"root": "a\x00b"}, "must not contain a NUL"),
        ({"root": "/" + "x" * 10_000}, "too long: 10001 characters"),
        ({"mount_point": "/mnt/.."}, "mount_point: '/mnt/..' must not contain '..'"),
        ({"capacity_bytes": 0}, r">= 1 - at `\$.capacity_bytes`"),
        ({"direct": "maybe"}, r"Invalid enum value 'maybe' - at `\$.direct`"),
        ({"num_threads": 65}, r"<= 64 - at `\$.num_threads`"),
    ],
)
def test_a_wrong_field_is_named_when_the_configuration_is_read(
    tmp_path: Path, pool: HostPool, fields: dict[str, object], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        backend_opener("file", {"root": str(tmp_path), **fields}, pool, NAMESPACE)
