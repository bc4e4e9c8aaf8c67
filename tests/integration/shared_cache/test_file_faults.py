"""Real file systems that fill up, turn read-only and go away under the file backend."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.factory import backend_opener, open_backend
from kvloop.shared_cache.guard import GuardConfig, GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.page_store import PageStore
from kvloop.shared_cache.storage_errors import StorageUnavailable

pytestmark = pytest.mark.integration

SHAPE = PageShape(num_layers=2, page_size=64, num_kv_heads=4, head_size=32, itemsize=2)
NAMESPACE = b"n" * 32
MOUNT_BYTES = 4 << 20
NUM_SLOTS = 2 * MOUNT_BYTES // SHAPE.slot_bytes
KEYS = [i.to_bytes(32, "big") for i in range(NUM_SLOTS)]


class Mount:
    """A small file system of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._is_mounted = False

    def mount(self) -> None:
        options = f"size={MOUNT_BYTES},nr_inodes=10000"
        self._run("mount", "-t", "tmpfs", "-o", options, "kvloop-test", str(self.path))
        self._is_mounted = True

    def remount(self, options: str) -> None:
        self._run("mount", "-o", f"remount,{options}", str(self.path))

    def remove(self) -> None:
        """Even while files on it are open."""
        self._run("umount", "-l", str(self.path))
        self._is_mounted = False

    def close(self) -> None:
        if self._is_mounted:
            self.remove()

    def _run(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=20)


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    (tmp_path / "mnt").mkdir()
    mount = Mount(tmp_path / "mnt")
    try:
        mount.mount()
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"file systems cannot be mounted here: {error}")
    yield mount
    mount.close()


@pytest.fixture
def pool() -> HostPool:
    pool = HostPool(SHAPE, NUM_SLOTS)
    pool.alloc(NUM_SLOTS)
    for slot in range(NUM_SLOTS):
        pool.view(slot)[:] = bytes([slot % 251]) * SHAPE.slot_bytes
    return pool


def opened(mount: Mount, pool: HostPool, **fields: object) -> StorageBackend:
    return open_backend("file", {"root": str(mount.path / "l3"), **fields}, pool, NAMESPACE)


def read_back(backend: StorageBackend, pool: HostPool, keys: list[bytes]) -> list[bool]:
    """Which pages are found; fails where one is another."""
    slots = [KEYS.index(key) for key in keys]
    expected = [bytes(pool.view(slot)) for slot in slots]
    found = backend.get(keys, slots)
    for slot, is_found, content in zip(slots, found, expected, strict=True):
        assert not is_found or bytes(pool.view(slot)) == content
        pool.view(slot)[:] = content
    return found


def test_a_full_file_system_costs_the_pages_that_did_not_fit_and_no_other(
    mount: Mount, pool: HostPool
) -> None:
    backend = opened(mount, pool)
    stored = backend.set(KEYS, range(NUM_SLOTS))
    assert True in stored and False in stored
    assert read_back(backend, pool, KEYS) == stored == backend.exists(KEYS)
    assert backend.stats()["no_room"] == stored.count(False)
    half_written = [p for p in mount.path.rglob("*") if p.is_file() and p.parent.name == "tmp"]
    assert half_written == []
    assert backend.put_small("record", b"x" * 100_000) is False
    backend.delete([key for key, is_stored in zip(KEYS, stored, strict=True) if is_stored][:4])
    missing = [key for key, is_stored in zip(KEYS, stored, strict=True) if not is_stored][:2]
    assert backend.set(missing, [KEYS.index(key) for key in missing]) == [True, True]
    backend.close()


def test_a_bounded_store_makes_room_on_a_file_system_that_is_fuller_than_it_thinks(
    mount: Mount, pool: HostPool
) -> None:
    backend = opened(mount, pool, capacity_bytes=10 * MOUNT_BYTES)
    for i in range(NUM_SLOTS):
        backend.set(KEYS[i : i + 1], [i])
    assert backend.stats()["no_room"] > 0 and backend.stats()["evicted"] > 0
    before = backend.stats()["no_room"]
    stored = [backend.set([KEYS[0]], [0])[0] for _ in range(2)]
    assert stored[-1] and backend.stats()["no_room"] <= before + 1
    assert read_back(backend, pool, KEYS[:1]) == [True]
    backend.close()


def test_a_file_system_that_turns_read_only_is_read_on(mount: Mount, pool: HostPool) -> None:
    backend = opened(mount, pool)
    assert backend.set(KEYS[:4], range(4)) == [True] * 4
    mount.remount("ro")
    check_that_it_only_reads(backend, pool)
    mount.remount("rw")
    assert backend.set(KEYS[4:6], [4, 5]) == [True] * 2
    backend.close()


@pytest.mark.parametrize("capacity", [{}, {"capacity_bytes": MOUNT_BYTES}], ids=["free", "bounded"])
def test_a_file_system_that_is_read_only_is_opened_and_read(
    mount: Mount, pool: HostPool, capacity: dict[str, object]
) -> None:
    writer = opened(mount, pool, **capacity)
    assert writer.set(KEYS[:4], range(4)) == [True] * 4
    writer.close()
    mount.remount("ro")
    reader = opened(mount, pool, **capacity)
    check_that_it_only_reads(reader, pool)
    reader.close()


def check_that_it_only_reads(backend: StorageBackend, pool: HostPool) -> None:
    """Four pages are there; what would write is refused, and counted."""
    assert read_back(backend, pool, KEYS[:5]) == [True] * 4 + [False]
    assert backend.set(KEYS[4:6], [4, 5]) == [False] * 2
    assert backend.put_small("record", b"x") is False
    assert backend.delete(KEYS[:1]) == [False]
    assert backend.stats()["read_only"] == 4


@pytest.mark.parametrize("capacity", [{}, {"capacity_bytes": MOUNT_BYTES}], ids=["free", "bounded"])
def test_a_mount_that_was_removed_is_unavailable_and_nothing_lands_beneath_it(
    mount: Mount, pool: HostPool, capacity: dict[str, object]
) -> None:
    (mount.path / "l3").mkdir()
    backend = opened(mount, pool, **capacity)
    assert backend.set(KEYS[:4], range(4)) == [True] * 4
    mount.remove()
    for call in (
        lambda: backend.exists(KEYS[:4]),
        lambda: backend.get(KEYS[:4], range(4)),
        lambda: backend.set(KEYS[4:6], [4, 5]),
        lambda: backend.put_small("record", b"x"),
        backend.probe,
    ):
        with pytest.raises(StorageUnavailable):
            call()
    # As where the root was made before the mount: what is there now is another file system.
    (mount.path / "l3").mkdir()
    with pytest.raises(StorageUnavailable, match="no longer mounted"):
        backend.set(KEYS[4:6], [4, 5])
    backend.close()
    assert [path.name for path in mount.path.rglob("*")] == ["l3"]


def test_a_mount_point_keeps_the_store_away_until_it_is_mounted_again(
    mount: Mount, pool: HostPool
) -> None:
    config = {"root": str(mount.path / "l3"), "mount_point": str(mount.path)}
    opener = backend_opener("file", config, pool, NAMESPACE)
    quick = GuardConfig(first_retry_s=0.05, max_retry_s=0.1, check_s=0.1)
    guard = GuardedBackend(opener, pool, name="file", namespace=NAMESPACE, config=quick)
    pages = PageStore(guard, pool, namespace=NAMESPACE, writer="prefill")
    assert guard.wait_attached(10)
    assert pages.save(KEYS[:4], range(4)) == [True] * 4
    mount.remove()
    assert pages.load(KEYS[:4], range(4)) == [None] * 4
    assert pages.save(KEYS[4:6], [4, 5]) == [False] * 2
    assert guard.state != "attached" and list(mount.path.iterdir()) == []
    mount.mount()
    assert guard.wait_attached(10)
    assert pages.save(KEYS[:2], range(2)) == [True] * 2
    assert pages.load(KEYS[:2], range(2)) == ["prefill"] * 2
    assert pages.close()


def test_truncated_and_flipped_files_are_counted_misses_and_then_replaced(
    tmp_path: Path, pool: HostPool
) -> None:
    config = {"root": str(tmp_path)}
    guard = GuardedBackend(
        backend_opener("file", config, pool, NAMESPACE), pool, name="file", namespace=NAMESPACE
    )
    pages = PageStore(guard, pool, namespace=NAMESPACE, writer="decode")
    assert guard.wait_attached(10)
    assert pages.save(KEYS[:3], range(3)) == [True] * 3
    truncated, flipped = (next(tmp_path.rglob(f"kvl1-*-{key.hex()}-0")) for key in KEYS[:2])
    os.truncate(truncated, 5000)
    data = bytearray(flipped.read_bytes())
    data[1000] ^= 1
    flipped.write_bytes(data)
    assert pages.load(KEYS[:3], range(3)) == [None, None, "decode"]
    assert pages.counters.snapshot().faults == {"payload": 1}
    assert pages.status()["stats"]["short_reads"] == 1
    assert pages.save(KEYS[:2], range(2)) == [True] * 2
    assert pages.load(KEYS[:2], range(2)) == ["decode"] * 2
    assert pages.close()
