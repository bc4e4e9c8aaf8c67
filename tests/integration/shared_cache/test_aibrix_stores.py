"""AIBrix's stores on disk: what faults of them do, and what each setting changes."""

from __future__ import annotations

import ctypes
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.backends.aibrix import shared_stores
from kvloop.shared_cache.backends.aibrix.block_store import BlockStore
from kvloop.shared_cache.backends.aibrix.library import load_aibrix
from kvloop.shared_cache.factory import open_backend
from kvloop.shared_cache.guard import GuardedBackend
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.page_store import PageStore
from kvloop.shared_cache.storage_errors import StorageUnavailable

pytestmark = pytest.mark.integration
pytest.importorskip("aibrix_kvcache", reason="see docs/backends/aibrix.md")

MHA = PageShape(num_layers=3, page_size=16, num_kv_heads=4, head_size=16, itemsize=2, head_groups=2)
MLA = PageShape(num_layers=4, page_size=64, num_kv_heads=1, head_size=288, itemsize=2)
"""A latent of 576 elements a token, told as a K and a V half of one head."""
KEYS = [secrets.token_bytes(32) for _ in range(6)]
_HOLD = """
import sys
from kvloop.shared_cache.backends.aibrix.block_store import BlockStore
from kvloop.shared_cache.backends.aibrix.config import parse_aibrix_config
config = parse_aibrix_config({"l2_cache_backend": "ROCKSDB", "root": sys.argv[1]})
store = BlockStore(config, sys.argv[2], 8192, 16)
print("held", flush=True)
sys.stdin.readline()
"""


class Place:
    def __init__(self, root: Path, shape: PageShape = MHA) -> None:
        self.root = root
        self.pool = HostPool(shape, 12)
        self.namespace = secrets.token_bytes(32)
        self._opened: list[StorageBackend] = []
        for slot in self.pool.alloc(self.pool.num_slots) or []:
            self.pool.view(slot)[:] = os.urandom(shape.slot_bytes)

    def open(self, l2_backend: str, **fields: Any) -> StorageBackend:
        config = {"l2_cache_backend": l2_backend, "root": str(self.root), **fields}
        backend = open_backend("aibrix", config, self.pool, self.namespace)
        self._opened.append(backend)
        return backend

    def page_store(self, l2_backend: str) -> PageStore:
        guard = GuardedBackend(
            lambda: self.open(l2_backend), self.pool, name="aibrix", namespace=self.namespace
        )
        assert guard.wait_attached(10)
        return PageStore(guard, self.pool, namespace=self.namespace, writer="decode")

    def shut(self, backend: StorageBackend) -> None:
        self._opened.remove(backend)
        backend.close()

    def close(self) -> None:
        for backend in self._opened:
            backend.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path / "l3")
    yield place
    place.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """4 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(mount), b"tmpfs", 0, b"size=4m"):
        pytest.skip("mounting a file system needs root")
    yield mount
    libc.umount2(os.fsencode(mount), 2)  # MNT_DETACH


@pytest.mark.parametrize("layout", ["LCND", "NCLD"])
@pytest.mark.parametrize("shape", [MHA, MLA], ids=["MHA", "MLA"])
@pytest.mark.parametrize("l2_backend", ["SHFS", "ROCKSDB"])
def test_pages_of_mha_and_mla_come_back_bit_for_bit_in_both_layouts(
    tmp_path: Path, l2_backend: str, shape: PageShape, layout: str
) -> None:
    place = Place(tmp_path / "l3", shape)
    backend = place.open(l2_backend, layout=layout)
    assert backend.set(KEYS[:4], [0, 1, 2, 3]) == [True] * 4
    assert backend.get(KEYS[:5], [4, 5, 6, 7, 8]) == [True] * 4 + [False]
    for slot in range(4):
        assert bytes(place.pool.view(slot)) == bytes(place.pool.view(4 + slot))
    told = f"{layout.lower()}{shape.page_size}"
    assert any(told in entry.name for entry in place.root.iterdir())
    place.close()


def files_of(place: Place) -> list[Path]:
    return [path for path in place.root.glob("kvl1-*-*_*/*/*/*") if "-records" not in str(path)]


@pytest.mark.parametrize("is_longer", [False, True], ids=["truncated", "lengthened"])
def test_a_file_of_another_length_is_a_miss_and_makes_room_for_a_good_one(
    place: Place, is_longer: bool
) -> None:
    backend = place.open("SHFS")
    backend.set(KEYS[:3], [0, 1, 2])
    [path, _] = [path for path in files_of(place) if KEYS[1].hex().encode().hex() in path.name]
    data = path.read_bytes()
    path.write_bytes(data + b"x" if is_longer else data[:-1])
    assert backend.get(KEYS[:3], [4, 5, 6]) == [True, False, True]
    assert backend.stats()["misfits"] == 1
    assert backend.exists(KEYS[:3]) == [True, False, True]
    assert backend.set(KEYS[:3], [0, 1, 2]) == [True] * 3
    assert backend.get(KEYS[:3], [4, 5, 6]) == [True] * 3


def test_what_a_killed_writer_left_half_written_is_no_page(place: Place) -> None:
    backend = place.open("SHFS")
    backend.set(KEYS[:1], [0])
    for path in files_of(place):
        path.rename(path.with_suffix(".tmp"))
    assert backend.exists(KEYS[:1]) == [False]
    assert [found.key for found in backend.objects()] == []
    assert backend.set(KEYS[:1], [0]) == [True]
    assert backend.get(KEYS[:1], [4]) == [True]


def test_a_damaged_database_file_costs_misses_and_pages_can_come_again(place: Place) -> None:
    backend = place.open("ROCKSDB")
    backend.set(KEYS[:3], [0, 1, 2])
    [shared] = shared_stores._stores.values()
    shared.store._manager._l2_cache._backend.store.flush()
    place.shut(backend)
    [path] = pages_folder_files(place, "*.sst")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    backend = place.open("ROCKSDB")
    found = backend.get(KEYS[:3], [4, 5, 6])
    assert False in found and True in found
    for slot, is_found in enumerate(found):
        assert not is_found or bytes(place.pool.view(slot)) == bytes(place.pool.view(4 + slot))
    assert backend.set(KEYS[:3], [0, 1, 2]) == [True] * 3
    assert backend.get(KEYS[:3], [4, 5, 6]) == [True] * 3


def test_a_full_disk_refuses_pages_and_serves_those_it_has(small_disk: Path) -> None:
    place = Place(small_disk / "l3", MLA)  # about 150 KiB a page
    backend = place.open("SHFS")
    keys = [secrets.token_bytes(32) for _ in range(40)]
    stored = [backend.set([key], [0])[0] for key in keys]
    assert stored[0] and not stored[-1]
    assert backend.exists(keys) == stored
    assert backend.get(keys[:1], [4]) == [True]
    assert bytes(place.pool.view(4)) == bytes(place.pool.view(0))
    assert backend.stats()["no_room"] >= 1
    assert backend.delete(keys[:8]) == [True] * 8
    assert backend.set(keys[:1], [0]) == [True]
    place.close()


def test_a_read_only_mount_serves_pages_and_is_unavailable_for_new_ones(small_disk: Path) -> None:
    place = Place(small_disk / "l3")
    backend = place.open("SHFS")
    backend.set(KEYS[:1], [0])
    read_only, remount = 1, 32
    libc = ctypes.CDLL(None, use_errno=True)
    path = os.fsencode(small_disk)
    assert libc.mount(b"tmpfs", path, b"tmpfs", read_only | remount, b"size=4m") == 0
    with pytest.raises(StorageUnavailable):
        backend.set(KEYS[1:2], [1])
    assert backend.get(KEYS[:2], [4, 5]) == [True, False]
    assert bytes(place.pool.view(4)) == bytes(place.pool.view(0))
    place.close()


def test_a_page_that_cannot_be_repaired_is_a_miss_and_spoils_no_other(place: Place) -> None:
    backend = place.open("SHFS")
    backend.set(KEYS[:2], [0, 1])
    [path, _] = [path for path in files_of(place) if KEYS[1].hex().encode().hex() in path.name]
    path.write_bytes(b"short")
    for lock in (place.root / "kvl1-locks").iterdir():
        lock.unlink()
        lock.mkdir()  # so that it cannot be opened, by root neither
    assert backend.get(KEYS[:2], [4, 5]) == [True, False]


def test_while_its_mount_is_gone_it_is_unavailable_and_writes_nothing_below(
    small_disk: Path,
) -> None:
    place = Place(small_disk / "l3")
    backend = place.open("SHFS", mount_point=str(small_disk))
    assert backend.set(KEYS[:1], [0]) == [True]
    assert ctypes.CDLL(None).umount2(os.fsencode(small_disk), 2) == 0
    with pytest.raises(StorageUnavailable, match="nothing is mounted at"):
        backend.probe()
    with pytest.raises(StorageUnavailable):
        backend.set(KEYS[1:2], [1])
    with pytest.raises(StorageUnavailable, match="nothing is mounted at"):
        place.open("SHFS", mount_point=str(small_disk))
    assert list(small_disk.iterdir()) == []
    place.close()


@pytest.mark.parametrize("l2_backend", ["SHFS", "ROCKSDB"])
def test_a_root_that_went_away_is_a_fault_and_no_empty_store(place: Place, l2_backend: str) -> None:
    backend = place.open(l2_backend)
    backend.set(KEYS[:1], [0])
    place.root.rename(place.root.with_name("gone"))
    for call in (backend.probe, lambda: backend.exists(KEYS), lambda: backend.get_small("epoch")):
        with pytest.raises(StorageUnavailable, match="is no directory"):
            call()
    with pytest.raises(StorageUnavailable):
        backend.set(KEYS[1:2], [1])
    assert not place.root.exists()


@pytest.mark.parametrize("l2_backend", ["SHFS", "ROCKSDB"])
def test_a_nodes_faults_are_misses_and_never_errors(place: Place, l2_backend: str) -> None:
    pages = place.page_store(l2_backend)
    assert pages.save(KEYS[:2], [0, 1]) == [True] * 2
    place.root.rename(place.root.with_name("gone"))
    assert pages.save(KEYS[2:4], [2, 3]) == [False] * 2
    assert len(pages.load(KEYS[:4], [4, 5, 6, 7])) == 4
    place._opened.clear()  # the guard's to close
    assert pages.close()


def test_opening_and_asking_make_no_folder_of_a_namespace(place: Place) -> None:
    for l2_backend in ("SHFS", "ROCKSDB"):
        backend = place.open(l2_backend)
        assert backend.exists(KEYS) == [False] * 6 and backend.get(KEYS[:1], [0]) == [False]
        assert backend.get_small("epoch") is None and backend.delete(KEYS[:1]) == [False]
    assert list(place.root.iterdir()) == []


def test_a_rocksdb_that_another_process_holds_cannot_be_opened_and_leaves_no_threads(
    place: Place,
) -> None:
    name = f"kvl1-{place.namespace.hex()}-{place.pool.shape.object_bytes}"
    place.root.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(place.root), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        before = threading.active_count()
        for _ in range(3):
            with pytest.raises(StorageUnavailable, match="cannot open: IO error"):
                place.open("ROCKSDB")
        assert threading.active_count() == before
    finally:
        holder.communicate(b"end\n", timeout=30)
    backend = place.open("ROCKSDB")
    assert backend.set(KEYS[:1], [0]) == [True]


def test_a_rocksdb_is_closed_with_its_last_user(place: Place) -> None:
    first, second = place.open("ROCKSDB"), place.open("ROCKSDB")
    first.set(KEYS[:1], [0])
    assert second.exists(KEYS[:1]) == [True] and len(shared_stores._stores) == 1
    place.shut(first)
    assert second.get(KEYS[:1], [4]) == [True]
    place.shut(second)
    assert shared_stores._stores == {}


def test_pages_of_a_rocksdb_go_after_their_time(place: Place) -> None:
    backend = place.open("ROCKSDB", ttl_s=1)
    backend.set(KEYS[:1], [0])
    [shared] = shared_stores._stores.values()
    time.sleep(2.5)
    database = shared.store._manager._l2_cache._backend.store
    database.flush()
    database.compact_range(None, None)
    assert backend.exists(KEYS[:1]) == [False]


def test_the_write_buffer_is_as_long_as_configured(place: Place) -> None:
    place.open("ROCKSDB", write_buffer_bytes=3 << 20).set(KEYS[:1], [0])
    [options] = pages_folder_files(place, "OPTIONS-*")
    assert f"write_buffer_size={3 << 20}" in options.read_text()


def pages_folder_files(place: Place, pattern: str) -> list[Path]:
    return sorted(place.root.glob(f"kvl1-*_*/{pattern}"))[-1:]


def test_as_many_pages_move_at_once_as_configured(place: Place) -> None:
    def num_threads() -> int:
        return sum(thread.name.startswith("l3-aibrix") for thread in threading.enumerate())

    before = num_threads()
    place.open("SHFS", num_threads=3)
    assert num_threads() == before + 3


def planted(place: Place, target: Path, layout: str = "lcnd") -> Path:
    """A symlink where AIBrix would make the namespace's folder of pages."""
    place.root.mkdir(exist_ok=True)
    name = f"kvl1-{place.namespace.hex()}-{place.pool.shape.object_bytes}_h0_0_l0_0_{layout}16roc"
    (place.root / name).symlink_to(target)
    return place.root / name


@pytest.mark.parametrize("l2_backend", ["SHFS", "ROCKSDB"])
def test_a_folder_that_leads_out_of_the_root_is_not_followed(
    place: Place, tmp_path: Path, l2_backend: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    link = planted(place, outside)
    with pytest.raises(StorageUnavailable, match="is a symbolic link, which is not followed"):
        place.open(l2_backend)
    link.unlink()
    (place.root / "kvl1-locks").symlink_to(outside)
    backend = place.open(l2_backend)
    with pytest.raises(StorageUnavailable, match="is a symbolic link, which is not followed"):
        backend.set(KEYS[:1], [0])
    planted(place, outside, "ncld")
    assert list(backend.objects()) == []
    backend.clear()
    assert [path.name for path in outside.iterdir()] == ["precious"]


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_a_page_whose_place_is_a_symlink_is_refused_and_counted(
    place: Place, tmp_path: Path, depth: int
) -> None:
    """The folder itself, its two levels of directories, and the file that is written first."""
    backend, outside = place.open("SHFS"), tmp_path / "outside"
    keys = [bytes([16 * i]) * 32 for i in range(4)]  # in directories apart
    assert backend.set(keys[:1], [0]) == [True]
    [file, *_] = files_of(place)
    outside.mkdir()
    if depth == 3:
        backend.delete(keys[:1])
        (outside / "precious").write_text("mine")
        file.with_suffix(".tmp").symlink_to(outside / "precious")
    else:
        link = [*reversed(file.parents)][len(place.root.parts) + depth]
        link.rename(tmp_path / "moved")
        link.symlink_to(outside)
    before = sorted((path, path.read_bytes()) for path in outside.iterdir())
    assert backend.set(keys[:1], [0]) == [False]
    others = backend.set(keys[1:4], [1, 2, 3])
    assert others == [depth != 0] * 3
    stats = backend.stats()
    assert stats["refused"] == (4 if depth == 0 else 1) and stats["no_room"] == 0
    assert sorted((path, path.read_bytes()) for path in outside.iterdir()) == before
    assert not any(entry.num_bytes == 4 for entry in backend.objects())


def test_every_handle_is_released_whatever_came_of_its_call(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, made = load_aibrix("SHFS"), list[Any]()
    region_type = library.ExternalMemoryRegion

    def region(*arguments: Any) -> Any:
        made.append(region_type(*arguments))
        return made[-1]

    monkeypatch.setattr(library, "ExternalMemoryRegion", region)
    backend = place.open("SHFS")
    backend.set(KEYS[:2], [0, 1])
    files_of(place)[0].write_bytes(b"short")
    assert sum(backend.get(KEYS[:3], [4, 5, 6])) == 1
    monkeypatch.setattr(BlockStore, "_blocks", lambda *_: 1 // 0)
    with pytest.raises(StorageUnavailable, match="ZeroDivisionError"):
        backend.get(KEYS[:1], [4])
    assert len(made) > 8 and [region.ref_count for region in made] == [0] * len(made)
