import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvloop.shared_cache.backends.directory import spares as spares_module
from kvloop.shared_cache.backends.directory.root import StoreRoot
from kvloop.shared_cache.backends.directory.spares import Spares

SIZE = 256 << 10


@pytest.fixture
def root(tmp_path: Path) -> StoreRoot:
    try:
        os.close(os.open(tmp_path, os.O_TMPFILE | os.O_WRONLY))
    except OSError as error:
        pytest.skip(f"files without names cannot be made here: {error}")
    return StoreRoot(tmp_path)


@pytest.fixture
def spares(root: StoreRoot) -> Iterator[Spares]:
    spares = Spares(root, SIZE, 3, 0)
    yield spares
    spares.close()


def num_open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def wait_until(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not what():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


def taken(spares: Spares) -> int:
    """The next file, once there is one."""
    files: list[int] = []

    def take() -> bool:
        fd = spares.take()
        files.extend([fd] if fd is not None else [])
        return bool(files)

    wait_until(take)
    return files[0]


def test_nothing_is_made_before_it_is_asked_for(spares: Spares, root: StoreRoot) -> None:
    before = num_open_files()
    assert spares.take() is None
    wait_until(lambda: num_open_files() >= before + 3)
    assert list(root.path.iterdir()) == [], "they have no names"


def test_a_file_has_room_and_is_given_once(spares: Spares) -> None:
    first, second = taken(spares), taken(spares)
    assert first != second
    status = os.fstat(first)
    assert status.st_size == SIZE and status.st_blocks * 512 >= SIZE
    os.close(first)
    os.close(second)


def test_what_is_not_used_for_a_while_gives_its_room_back(
    spares: Spares, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spares_module, "_IDLE_S", 0.05)
    before = num_open_files()
    spares.take()
    wait_until(lambda: num_open_files() > before)
    wait_until(lambda: num_open_files() == before)


def test_closing_leaves_no_file_open(root: StoreRoot) -> None:
    before = num_open_files()
    spares = Spares(root, SIZE, 3, 0)
    os.close(taken(spares))
    spares.close()
    assert num_open_files() == before and spares.take() is None


def test_none_are_made_of_what_little_room_is_left(
    root: StoreRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spares_module, "_LEAVE_FREE", 1 << 40)
    spares, before = Spares(root, SIZE, 3, 0), num_open_files()
    spares.take()
    time.sleep(0.1)
    assert spares.take() is None and num_open_files() == before
    spares.close()


def test_a_file_system_that_cannot_is_asked_again_and_costs_nothing_else(
    root: StoreRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    before = num_open_files()
    spares = Spares(root, SIZE, 3, 0)
    with monkeypatch.context() as broken:
        broken.setattr(os, "posix_fallocate", refuse)
        assert spares.take() is None
        time.sleep(0.05)
        assert spares.take() is None and num_open_files() == before
    os.close(taken(spares))
    spares.close()


@pytest.mark.parametrize("num_bytes", [4096, 256 << 20])
def test_small_objects_and_very_large_ones_have_none(root: StoreRoot, num_bytes: int) -> None:
    spares, before = Spares(root, num_bytes, 64, 0), num_open_files()
    assert spares.take() is None
    time.sleep(0.05)
    assert num_open_files() == before
    spares.close()
