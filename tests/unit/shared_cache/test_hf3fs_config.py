"""What hf3fs's configuration may say, and what it is told where that is wrong."""

import os
import sys
import threading
import types
from pathlib import Path
from typing import Any

import hf3fs_library
import pytest

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.factory import backend_opener
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.storage_errors import StorageUnavailable

SHAPE = PageShape(num_layers=1, page_size=4, num_kv_heads=1, head_size=8, itemsize=2)
NAMESPACE = b"n" * 32
KEYS = [bytes([i]) * 32 for i in range(4)]


@pytest.fixture
def pool() -> HostPool:
    pool = HostPool(SHAPE, 8)
    pool.array[:] = 7
    return pool


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    return hf3fs_library.make_mount(tmp_path / "3fs")


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> Any:
    native = hf3fs_library.install(monkeypatch)
    native.made.clear()
    return native


def opened(pool: HostPool, mount: Path, **fields: object) -> StorageBackend:
    config = {"mount": str(mount), "require_mount": False, **fields}
    return backend_opener("hf3fs", config, pool, NAMESPACE)()


def refused(pool: HostPool, mount: Path, **fields: object) -> str:
    with pytest.raises(ConfigError) as error:
        backend_opener("hf3fs", {"mount": str(mount), **fields}, pool, NAMESPACE)
    return str(error.value)


def test_usrbio_without_its_library_says_what_to_install(
    pool: HostPool, mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf3fs_library.hide(monkeypatch)
    assert "hf3fs_py_usrbio" in refused(pool, mount, io="usrbio")


def test_a_library_without_the_calls_is_refused(
    pool: HostPool, mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hf3fs_fuse", types.ModuleType("hf3fs_fuse"))
    monkeypatch.setitem(sys.modules, "hf3fs_fuse.io", types.ModuleType("hf3fs_fuse.io"))
    assert "lacks deregister_fd" in refused(pool, mount, io="usrbio")


def test_auto_takes_rings_where_the_library_is_there(
    pool: HostPool, mount: Path, native: Any
) -> None:
    backend = opened(pool, mount)
    assert backend.stats()["rings_opened"] == 2
    backend.close()


def test_auto_takes_posix_where_it_is_not(
    pool: HostPool, mount: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hf3fs_library.hide(monkeypatch)
    backend = opened(pool, mount)
    assert "rings_opened" not in backend.stats()
    assert backend.set(KEYS[:1], [0]) == [True]
    backend.close()


def test_posix_uses_no_ring(pool: HostPool, mount: Path, native: Any) -> None:
    backend = opened(pool, mount, io="posix")
    assert backend.set(KEYS[:1], [0]) == [True]
    backend.close()
    assert not native.made


def test_pages_lie_in_the_directory_under_the_mount(
    pool: HostPool, mount: Path, native: Any
) -> None:
    backend = opened(pool, mount, directory="teams/a")
    assert backend.set(KEYS[:1], [0]) == [True]
    backend.close()
    assert list((mount / "teams" / "a" / "kvl1").iterdir())


@pytest.mark.parametrize("directory", ["", "..", "a/../../b", "/etc", "a\0b", "x" * 10_000])
def test_a_directory_that_leads_elsewhere_is_refused(
    pool: HostPool, mount: Path, directory: str
) -> None:
    assert "directory" in refused(pool, mount, directory=directory, io="posix")


def test_a_symlink_out_of_the_mount_is_refused(pool: HostPool, mount: Path) -> None:
    os.symlink("/etc", mount / "out")
    assert "symlink" in refused(pool, mount, directory="out/kvloop", io="posix")


@pytest.mark.parametrize("path", ["", "../x", "/a/\0", "y" * 10_000])
def test_a_mount_that_is_no_path_is_refused(pool: HostPool, path: str) -> None:
    with pytest.raises(ConfigError, match="mount"):
        backend_opener("hf3fs", {"mount": path}, pool, NAMESPACE)


def test_a_mount_that_is_a_file_is_refused(pool: HostPool, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "must be a directory" in refused(pool, tmp_path / "file", io="posix")


@pytest.mark.parametrize(
    "fields",
    [
        {"entries": 0},
        {"entries": 1025},
        {"numjobs": 0},
        {"client_timeout": 0},
        {"iov_bytes": 1},
        {"numa_node": -1},
        {"num_threads": 0},
        {"io": "rdma"},
        {"require_mount": "yes"},
        {"capacity_bytes": 1},
    ],
    ids=str,
)
def test_a_wrong_field_is_named(pool: HostPool, mount: Path, fields: dict[str, object]) -> None:
    [name] = fields
    assert name in refused(pool, mount, **fields)


def test_a_mount_that_is_not_there_is_unavailable(pool: HostPool, tmp_path: Path) -> None:
    opener = backend_opener(
        "hf3fs",
        {"mount": str(tmp_path / "none"), "io": "posix", "require_mount": False},
        pool,
        NAMESPACE,
    )
    with pytest.raises(StorageUnavailable):
        opener()
    assert not (tmp_path / "none").exists()


def test_a_plain_directory_is_no_mount(pool: HostPool, mount: Path) -> None:
    with pytest.raises(StorageUnavailable, match="3FS is not mounted there"):
        opened(pool, mount, io="posix", require_mount=True)
    assert not (mount / "kvloop").exists()


def test_a_mount_of_another_kind_is_none_of_3fs(pool: HostPool) -> None:
    with pytest.raises(StorageUnavailable, match="a proc is mounted there, not a fuse"):
        opened(pool, Path("/proc"), io="posix", require_mount=True)


def test_each_ring_has_as_many_entries_as_are_asked_for(
    pool: HostPool, mount: Path, native: Any
) -> None:
    opened(pool, mount, entries=3).close()
    assert [made["entries"] for made in native.made if made["kind"] == "ring"] == [3, 3]
    memory = [made["bytes"] for made in native.made if made["kind"] == "iovec"]
    assert memory == [3 * SHAPE.object_bytes] * 2


def test_iov_bytes_bounds_the_memory_of_all_rings(pool: HostPool, mount: Path, native: Any) -> None:
    bound = 2 * 2 * 2 * SHAPE.object_bytes  # 2 objects for each of 2 + 2 rings
    opened(pool, mount, entries=8, numjobs=2, iov_bytes=bound).close()
    memory = [made["bytes"] for made in native.made if made["kind"] == "iovec"]
    assert memory == [2 * SHAPE.object_bytes] * 2


def test_iov_bytes_too_small_says_what_would_do(pool: HostPool, mount: Path) -> None:
    least = 2 * 4 * SHAPE.object_bytes
    message = refused(pool, mount, numjobs=4, iov_bytes=least - 1)
    assert "iov_bytes" in message and str(least) in message


def test_the_numa_node_reaches_rings_and_memory(pool: HostPool, mount: Path, native: Any) -> None:
    opened(pool, mount, numa_node=1).close()
    opened(pool, mount).close()
    assert [made["numa"] for made in native.made] == [1] * 4 + [-1] * 4


@pytest.mark.parametrize("numjobs", [1, 3])
def test_a_batch_is_spread_over_numjobs_rings_at_most(
    pool: HostPool, mount: Path, native: Any, numjobs: int
) -> None:
    backend = opened(pool, mount, entries=1, numjobs=numjobs)
    meeting = threading.Barrier(numjobs)  # passed only where as many rings write at once

    def meet(_: object) -> None:
        if backend.stats()["writes"] == 0 and meeting.n_waiting < numjobs:
            meeting.wait(20)

    native.faults.choose = meet
    backend.set(KEYS[:numjobs], list(range(numjobs)))
    native.faults.choose = lambda _: None
    backend.set(KEYS[numjobs:], [0] * (4 - numjobs))
    assert backend.stats()["rings_opened"] == 1 + numjobs
    backend.close()


def test_posix_moves_numjobs_objects_at_once(pool: HostPool, mount: Path) -> None:
    def threads() -> set[threading.Thread]:
        return {t for t in threading.enumerate() if t.name.startswith("l3-hf3fs-io")}

    before = threads()
    backend = opened(pool, mount, io="posix", numjobs=5)
    assert len(threads() - before) == 5
    backend.close()


def test_a_ring_is_given_up_after_client_timeout(pool: HostPool, mount: Path, native: Any) -> None:
    backend = opened(pool, mount, client_timeout=1.0)
    hold = threading.Event()
    native.faults.choose = lambda _: native.Spoil(hold=hold)
    with pytest.raises(StorageUnavailable, match="timed out"):
        backend.set(KEYS[:1], [0])
    assert backend.stats()["rings_lost"] == 1
    hold.set()
    native.faults.choose = lambda _: None
    assert backend.set(KEYS[:1], [0]) == [True]
    backend.close()


def test_metadata_calls_have_as_many_threads_as_are_asked_for(pool: HostPool, mount: Path) -> None:
    def threads() -> set[threading.Thread]:
        return {t for t in threading.enumerate() if t.name.startswith("l3-hf3fs-settle")}

    before = threads()
    backend = opened(pool, mount, io="posix", num_threads=3)
    assert len(threads() - before) == 3
    backend.close()


def test_rings_that_the_mount_refuses_are_unavailable(
    pool: HostPool, tmp_path: Path, native: Any
) -> None:
    with pytest.raises(StorageUnavailable, match="hf3fs"):
        opened(pool, tmp_path, io="usrbio")  # there is no 3fs-virt
