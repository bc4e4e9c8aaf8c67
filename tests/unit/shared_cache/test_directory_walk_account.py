import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvloop.shared_cache.backends.directory import accounts, ticker, walk_account
from kvloop.shared_cache.backends.directory.file_system import is_local, type_in
from kvloop.shared_cache.backends.directory.root import StoreRoot
from kvloop.shared_cache.backends.directory.walk_state import WalkState, read_state, write_state
from kvloop.shared_cache.backends.file.backend import FileBackend, FileConfig
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape

SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=1, head_size=8, itemsize=2)
PAGE = SHAPE.object_bytes
NAMESPACE = b"n" * 32
Open = Callable[[int], FileBackend]


@pytest.fixture(autouse=True)
def shared_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "file_system_type", lambda path: "nfs4")
    monkeypatch.setattr(ticker, "_PERIOD_S", 0.02)
    monkeypatch.setattr(walk_account, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(walk_account, "WALK_EVERY_S", 0.1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "l3"


@pytest.fixture
def open_(root: Path) -> Iterator[Open]:
    pool = HostPool(SHAPE, 40)
    pool.alloc(40)
    opened: list[FileBackend] = []

    def open_store(num_pages: int) -> FileBackend:
        config = FileConfig(root=str(root), capacity_bytes=num_pages * PAGE)
        opened.append(FileBackend(config, pool, NAMESPACE))
        return opened[-1]

    yield open_store
    for backend in opened:
        backend.close()


def keys(*numbers: int) -> list[bytes]:
    return [bytes([number]) * 32 for number in numbers]


def put(backend: FileBackend, *numbers: int) -> list[bool]:
    return backend.set(keys(*numbers), range(len(numbers)))


def num_files(root: Path) -> int:
    return sum(1 for _ in root.rglob("kvl1-*"))


def wait_until(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not what():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


def test_no_index_is_made_where_machines_share_the_files(open_: Open, root: Path) -> None:
    backend = open_(32)
    put(backend, 1)
    wait_until(lambda: backend.stats()["walks"] > 0)
    wait_until(lambda: [path.name for path in (root / "kvl1").glob("*.*")] == ["walk.json"])


def test_a_process_does_not_write_beyond_the_bound_and_room_is_made_soon(
    open_: Open, root: Path
) -> None:
    backend = open_(8)
    assert put(backend, *range(1, 13)) == [True] * 8 + [False] * 4
    wait_until(lambda: put(backend, 20) == [True])
    assert num_files(root) <= 8 and backend.stats()["evicted"] > 0


def test_pages_that_were_read_stay(open_: Open, root: Path) -> None:
    backend = open_(8)
    put(backend, *range(1, 8))
    for path in root.rglob("kvl1-*"):
        os.utime(path, (1.0, 1.0))
    backend.get(keys(1), [0])
    wait_until(lambda: sum(p.stat().st_mtime > 1.0 for p in root.rglob("kvl1-*")) == 1)
    put(backend, 8)
    wait_until(lambda: backend.stats()["evicted"] > 0)
    assert backend.exists(keys(1, 8)) == [True, True]


def test_what_others_have_written_is_learnt(open_: Open) -> None:
    mine, theirs = open_(8), open_(8)
    put(theirs, 1, 2, 3)
    put(mine, 4)
    wait_until(lambda: mine.stats()["used_bytes"] == theirs.stats()["used_bytes"] == 4 * PAGE)


def test_a_walker_that_died_is_replaced_when_its_lease_ends(open_: Open, root: Path) -> None:
    root.mkdir()
    with StoreRoot(root).open() as opened:
        until = time.time() + 0.5
        write_state(opened, WalkState(walker="dead", walker_until=until), "dead")
        backend = open_(8)
        put(backend, 1)
        wait_until(lambda: backend.stats()["walks"] > 0)
        assert time.time() >= until


@pytest.mark.parametrize("content", [b"", b"{", b'{"num_bytes": "x"}', b"\xff\xfe"])
def test_a_damaged_state_is_none(root: Path, content: bytes) -> None:
    (root / "kvl1").mkdir(parents=True)
    (root / "kvl1" / "walk.json").write_bytes(content)
    with StoreRoot(root).open() as opened:
        assert read_state(opened) == WalkState()


MOUNTS = """\
22 1 259:1 / / rw,relatime - ext4 /dev/vda rw
30 22 0:30 / /mnt rw - tmpfs tmpfs rw
31 30 0:31 / /mnt/with\\040space rw shared:1 - nfs4 server:/x rw
32 22 0:32 / /mnt rw - fuse.hf3fs hf3fs rw
"""


@pytest.mark.parametrize(
    ("directory", "file_system"),
    [
        ("/data", "ext4"),
        ("/mnt/l3", "fuse.hf3fs"),  # mounted over the first
        ("/mnt/with space/l3", "nfs4"),
        ("/mntx", "ext4"),
    ],
)
def test_the_file_system_is_that_of_the_deepest_and_last_mount(
    directory: str, file_system: str
) -> None:
    assert type_in(MOUNTS, Path(directory)) == file_system
    assert is_local(file_system) == (file_system == "ext4")
