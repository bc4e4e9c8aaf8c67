"""Rings of 3FS's client: what comes back, what is given up, and what is given back."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hf3fs_library
import pytest

from kvloop.shared_cache.backends.directory.page_io import Transfer
from kvloop.shared_cache.backends.hf3fs.library import load_usrbio
from kvloop.shared_cache.backends.hf3fs.ring import RingSettings
from kvloop.shared_cache.backends.hf3fs.shared_block import SharedBlock
from kvloop.shared_cache.backends.hf3fs.usrbio_io import UsrbioIO
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape

SHAPE = PageShape(
    num_layers=2, page_size=16, num_kv_heads=4, head_size=32, itemsize=2, head_groups=2
)
SIZE = SHAPE.object_bytes
NUM_SLOTS = 12


class Bench:
    """Files on a mount, a pool, and rings between them."""

    def __init__(self, native: Any, mount: Path) -> None:
        self.native = native
        self.mount = mount
        self.pool = HostPool(SHAPE, NUM_SLOTS)
        self._opened: list[UsrbioIO] = []
        self._fds: list[int] = []

    def io(self, *, num_pieces: int = 4, num_rings: int = 1, timeout_s: float = 20.0) -> UsrbioIO:
        settings = RingSettings(mount=str(self.mount), num_pieces=num_pieces, timeout_s=timeout_s)
        io = UsrbioIO(load_usrbio(), settings, num_rings, self.pool)
        self._opened.append(io)
        return io

    def file(self, content: bytes = b"", flags: int = os.O_RDWR) -> int:
        path = self.mount / f"file-{len(self._fds)}"
        path.write_bytes(content)
        self._fds.append(os.open(path, flags))
        return self._fds[-1]

    def stored(self, n: int) -> tuple[list[Transfer], list[bytes]]:
        """Transfers of files of random content, each to a slot and a group of its own."""
        contents = [os.urandom(SIZE) for _ in range(n)]
        places = [(i // 2, i % 2) for i in range(n)]
        return [
            Transfer(self.file(content), *place)
            for content, place in zip(contents, places, strict=True)
        ], contents

    def held(self, transfer: Transfer) -> bytes:
        return bytes(self.pool.group_view(transfer.slot, transfer.group))

    def spoil(self, number: int, **what: Any) -> None:
        """Spoil requests on one file."""
        path = os.readlink(f"/proc/self/fd/{number}")
        spoil = self.native.Spoil(**what)
        self.native.faults.choose = lambda request: spoil if request.path == path else None

    def close(self) -> None:
        for io in self._opened:
            for fd in self._fds:
                io.forget(fd)
            io.close()
        for fd in self._fds:
            os.close(fd)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Bench]:
    native = hf3fs_library.install(monkeypatch)
    bench = Bench(native, hf3fs_library.make_mount(tmp_path))
    yield bench
    bench.close()
    until(lambda: set(native.live.counts.values()) == {0})


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_each_object_comes_to_its_slot_whatever_the_order(bench: Bench) -> None:
    transfers, contents = bench.stored(24)
    assert bench.io().read(transfers) == [SIZE] * 24
    assert [bench.held(transfer) for transfer in transfers] == contents


def test_each_object_comes_to_its_file(bench: Bench) -> None:
    bench.pool.array[:] = 0
    transfers = [Transfer(bench.file(), i // 2, i % 2) for i in range(24)]
    for transfer in transfers:
        bench.pool.group_view(transfer.slot, transfer.group)[:] = os.urandom(SIZE)
    assert bench.io().write(transfers) == [SIZE] * 24
    for transfer in transfers:
        assert os.pread(transfer.fd, SIZE + 1, 0) == bench.held(transfer)


def test_an_empty_batch_is_answered(bench: Bench) -> None:
    assert bench.io().read([]) == bench.io().write([]) == []


def test_a_short_file_is_told_and_leaves_the_slot_alone(bench: Bench) -> None:
    bench.pool.array[:] = 9
    short = Transfer(bench.file(b"x" * 5000), 0, 0)
    assert bench.io().read([short]) == [5000]
    assert bench.held(short) == b"\x09" * SIZE


def test_one_object_that_fails_is_the_only_one(bench: Bench) -> None:
    transfers, contents = bench.stored(6)
    bench.spoil(transfers[2].fd, error=errno.EIO)
    io = bench.io(num_pieces=2)
    assert io.read(transfers) == [SIZE, SIZE, -errno.EIO, SIZE, SIZE, SIZE]
    assert bench.held(transfers[5]) == contents[5]
    assert io.stats()["rings_lost"] == 0


def test_a_file_that_is_not_open_for_writing_fails_alone(bench: Bench) -> None:
    good, bad = Transfer(bench.file(), 0, 0), Transfer(bench.file(flags=os.O_RDONLY), 0, 1)
    assert bench.io().write([bad, good]) == [-errno.EACCES, SIZE]


def test_a_file_that_is_none_of_3fs_fails_alone(bench: Bench, tmp_path_factory: Any) -> None:
    fd = os.open(tmp_path_factory.mktemp("other") / "file", os.O_RDWR | os.O_CREAT)
    transfers, _ = bench.stored(1)
    assert bench.io().read([Transfer(fd, 1, 0), *transfers]) == [-errno.EBADF, SIZE]
    os.close(fd)


def test_what_was_written_in_part_is_written_on(bench: Bench) -> None:
    transfer = Transfer(bench.file(), 0, 0)
    bench.pool.view(0)[:] = os.urandom(SHAPE.slot_bytes)
    bench.spoil(transfer.fd, max_bytes=8192)
    assert bench.io().write([transfer]) == [SIZE]
    assert os.pread(transfer.fd, SIZE, 0) == bench.held(transfer)


def test_a_write_that_makes_no_progress_fails(bench: Bench) -> None:
    transfer = Transfer(bench.file(), 0, 0)
    bench.spoil(transfer.fd, max_bytes=0)
    assert bench.io().write([transfer]) == [-errno.EIO]


def test_a_ring_that_hangs_is_given_up_and_another_takes_over(bench: Bench) -> None:
    transfers, contents = bench.stored(2)
    hold = threading.Event()
    bench.spoil(transfers[0].fd, hold=hold)
    io = bench.io(timeout_s=1.0)
    assert io.read(transfers)[0] == -errno.ETIMEDOUT
    assert io.stats()["rings_lost"] == 1
    assert io.read(transfers[1:]) == [SIZE]
    assert bench.held(transfers[1]) == contents[1]
    hold.set()


def test_a_read_that_comes_late_never_touches_the_slot(bench: Bench) -> None:
    [transfer], _ = bench.stored(1)
    hold = threading.Event()
    bench.spoil(transfer.fd, hold=hold)
    assert bench.io(timeout_s=0.1).read([transfer]) == [-errno.ETIMEDOUT]
    bench.pool.array[:] = 5
    hold.set()
    until(lambda: bench.native.live.counts["iovecs"] == 2)  # the lost ring's is gone
    assert bench.held(transfer) == b"\x05" * SIZE


def test_of_a_lost_ring_what_had_come_is_kept(bench: Bench) -> None:
    transfers, contents = bench.stored(3)
    hold = threading.Event()
    bench.spoil(transfers[2].fd, hold=hold)
    results = bench.io(timeout_s=1.0).read(transfers)
    assert results == [SIZE, SIZE, -errno.ETIMEDOUT]
    assert bench.held(transfers[0]) == contents[0]
    hold.set()


def test_a_call_that_gets_no_ring_in_time_fails(bench: Bench) -> None:
    transfers, _ = bench.stored(1)
    io = bench.io(timeout_s=0.1)
    ring = io._rings[True].get()  # as a call that takes long
    assert io.read(transfers) == [-errno.ETIMEDOUT]
    assert io.stats()["ring_waits"] == 1
    io._rings[True].put(ring)
    assert io.read(transfers) == [SIZE]


def test_a_large_batch_is_spread_over_the_rings(bench: Bench) -> None:
    transfers, contents = bench.stored(24)
    io = bench.io(num_pieces=4, num_rings=3)
    meeting = threading.Barrier(3)  # passed only by three rings at once
    first = {os.readlink(f"/proc/self/fd/{transfer.fd}") for transfer in transfers[::8]}

    def meet(request: Any) -> None:
        if request.path in first:
            meeting.wait(20)

    bench.native.faults.choose = meet
    assert io.read(transfers) == [SIZE] * 24
    assert [bench.held(transfer) for transfer in transfers] == contents


def test_calls_at_once_get_what_they_asked_for(bench: Bench) -> None:
    transfers, contents = bench.stored(24)
    io = bench.io(num_pieces=2, num_rings=3)
    shares = [transfers[i::4] for i in range(4)]
    readers = [threading.Thread(target=io.read, args=(share,)) for share in shares]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(20)
    assert [bench.held(transfer) for transfer in transfers] == contents


def test_bytes_that_went_through_shared_memory_are_counted(bench: Bench) -> None:
    transfers, _ = bench.stored(3)
    io = bench.io()
    io.read([*transfers, Transfer(bench.file(b"short"), 5, 0)])
    assert io.stats()["staged_bytes"] == 3 * SIZE


def test_a_file_is_registered_once_and_forgotten_before_it_is_closed(bench: Bench) -> None:
    [transfer], _ = bench.stored(1)
    io = bench.io()
    assert io.read([transfer]) == io.read([transfer]) == [SIZE]
    assert bench.native.live.counts["files"] == 1
    io.forget(transfer.fd)
    io.forget(transfer.fd)  # once more does no harm
    assert bench.native.live.counts["files"] == 0
    assert io.read([transfer]) == [SIZE]


def test_a_number_that_was_left_registered_is_registered_anew(bench: Bench) -> None:
    [transfer], [content] = bench.stored(1)
    io = bench.io()
    stale = os.open(bench.mount / "stale", os.O_RDWR | os.O_CREAT)
    bench.native.register_fd(stale)
    os.close(stale)  # a client that is dead does not let go of it before
    again = os.open(bench.mount / "file-0", os.O_RDONLY)
    assert again == stale
    assert io.read([Transfer(again, 0, 0)]) == [SIZE]
    assert bench.held(transfer) == content
    io.forget(again)
    os.close(again)


def test_closing_gives_back_memory_rings_and_names(bench: Bench) -> None:
    before = set(os.listdir("/dev/shm"))
    io = bench.io(num_rings=3)
    assert bench.native.live.counts == {"iovecs": 2, "rings": 2, "files": 0}
    assert set(os.listdir("/dev/shm")) <= before  # has no name even while it is used
    io.close()
    assert bench.native.live.counts == {"iovecs": 0, "rings": 0, "files": 0}
    assert not os.listdir(bench.mount / "3fs-virt" / "iovs")


def test_shared_memory_that_there_is_no_room_for_is_an_error_at_once() -> None:
    before = set(os.listdir("/dev/shm"))
    with pytest.raises(OSError) as error:
        SharedBlock(1 << 42)
    assert error.value.errno in (errno.ENOSPC, errno.ENOMEM)
    assert set(os.listdir("/dev/shm")) <= before


def test_a_ring_that_the_mount_refuses_leaves_nothing_behind(bench: Bench) -> None:
    before = set(os.listdir("/dev/shm"))
    (bench.mount / "3fs-virt" / "iovs").rmdir()
    with pytest.raises(OSError):
        bench.io()
    assert set(os.listdir("/dev/shm")) <= before
