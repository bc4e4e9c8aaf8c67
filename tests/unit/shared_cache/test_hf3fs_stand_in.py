"""The stand-in of 3FS's client breaks on whoever breaks the client's rules."""

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import hf3fs_library
import pytest

BLOCK = 4096


class Client:
    """Shared memory of 4 blocks, a ring for each direction, and a file of 4 blocks."""

    def __init__(self, native: Any, mount: Path) -> None:
        from hf3fs_fuse import io

        self.native, self.io, self.mount = native, io, mount
        self.memory = SharedMemory(create=True, size=4 * BLOCK)
        self.iov = io.make_iovec(self.memory, str(mount))
        self.reads = io.make_ioring(str(mount), 2, for_read=True)
        self.writes = io.make_ioring(str(mount), 2, for_read=False)
        self.content = os.urandom(4 * BLOCK)
        (mount / "file").write_bytes(self.content)
        self.fd = self.open(os.O_RDWR)
        io.register_fd(self.fd)

    def open(self, flags: int) -> int:
        return os.open(self.mount / "file", flags)

    def close(self) -> None:
        self.io.deregister_fd(self.fd)
        os.close(self.fd)
        del self.reads, self.writes, self.iov
        self.memory.close()
        self.memory.unlink()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Client]:
    native = hf3fs_library.install(monkeypatch)
    client = Client(native, hf3fs_library.make_mount(tmp_path / "mount"))
    yield client
    client.close()


@contextmanager
def refusal(number: int) -> Iterator[None]:
    with pytest.raises(OSError) as error:
        yield
    assert error.value.errno == number


def wait(ring: Any, number: int = 1) -> list[Any]:
    return ring.submit().wait(min_results=number, timeout=timedelta(seconds=20))


def test_a_request_moves_bytes_and_brings_its_userdata(client: Client) -> None:
    token = object()
    client.reads.prepare(client.iov[BLOCK : 3 * BLOCK], True, client.fd, BLOCK, token)
    [done] = wait(client.reads)
    assert done.result == 2 * BLOCK and done.userdata is token
    assert bytes(client.memory.buf[BLOCK : 3 * BLOCK]) == client.content[BLOCK : 3 * BLOCK]


@pytest.mark.parametrize(
    ("start", "stop", "offset"),
    [(1, BLOCK + 1, 0), (0, BLOCK - 1, 0), (0, BLOCK, 512)],
)
def test_what_is_not_aligned_is_refused(client: Client, start: int, stop: int, offset: int) -> None:
    with refusal(errno.EINVAL):
        client.reads.prepare(client.iov[start:stop], True, client.fd, offset)


def test_a_request_of_no_bytes_is_refused(client: Client) -> None:
    with refusal(errno.EINVAL):
        client.reads.prepare(client.iov[0:0], True, client.fd, 0)


def test_a_ring_takes_one_direction_only(client: Client) -> None:
    with refusal(errno.EINVAL):
        client.reads.prepare(client.iov[0:BLOCK], False, client.fd, 0)
    with refusal(errno.EINVAL):
        client.writes.prepare(client.iov[0:BLOCK], True, client.fd, 0)


def test_a_full_ring_takes_no_more_until_results_are_taken(client: Client) -> None:
    for i in range(2):
        client.reads.prepare(client.iov[i * BLOCK : (i + 1) * BLOCK], True, client.fd, 0)
    with refusal(errno.EAGAIN):
        client.reads.prepare(client.iov[2 * BLOCK : 3 * BLOCK], True, client.fd, 0)
    wait(client.reads, 2)
    client.reads.prepare(client.iov[2 * BLOCK : 3 * BLOCK], True, client.fd, 0)
    wait(client.reads)


def test_a_file_must_be_registered(client: Client) -> None:
    fd = client.open(os.O_RDONLY)
    with refusal(errno.EBADF):
        client.reads.prepare(client.iov[0:BLOCK], True, fd, 0)
    os.close(fd)


def test_a_file_is_registered_once(client: Client) -> None:
    with refusal(errno.EINVAL):
        client.io.register_fd(client.fd)


def test_a_file_of_another_file_system_is_not_registered(client: Client, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    with refusal(errno.EBADF):
        client.io.register_fd(fd)
    os.close(fd)


def test_a_file_that_is_closed_first_stays_registered(client: Client) -> None:
    fd = client.open(os.O_RDONLY)
    client.io.register_fd(fd)
    os.close(fd)
    client.io.deregister_fd(fd)
    again = client.open(os.O_RDONLY)
    assert again == fd
    with refusal(errno.EINVAL):
        client.io.register_fd(again)
    client.io.deregister_fd(again)
    os.close(again)


def test_a_file_must_be_open_for_what_is_asked(client: Client) -> None:
    for flags, ring, is_read in (
        (os.O_RDONLY, client.writes, False),
        (os.O_WRONLY, client.reads, True),
    ):
        fd = client.open(flags)
        client.io.register_fd(fd)
        with refusal(errno.EACCES):
            ring.prepare(client.iov[0:BLOCK], is_read, fd, 0)
        client.io.deregister_fd(fd)
        os.close(fd)


def test_memory_is_known_to_its_own_mount_only(client: Client, tmp_path: Path) -> None:
    other = hf3fs_library.make_mount(tmp_path / "other")
    iov = client.io.make_iovec(client.memory, str(other))
    client.reads.prepare(iov[0:BLOCK], True, client.fd, 0)
    assert wait(client.reads)[0].result == -errno.EINVAL


def test_memory_must_have_its_name_when_it_is_registered(client: Client) -> None:
    memory = SharedMemory(create=True, size=BLOCK)
    memory.unlink()
    with refusal(errno.EINVAL):
        client.io.make_iovec(memory, str(client.mount))
    memory.close()


def test_memory_that_is_given_back_cannot_be_used(client: Client) -> None:
    iov = client.io.make_iovec(client.memory, str(client.mount))
    part = iov[0:BLOCK]
    del iov
    client.reads.prepare(part, True, client.fd, 0)
    assert wait(client.reads)[0].result == -errno.EINVAL


def test_a_request_stays_within_a_block_of_its_memory(client: Client) -> None:
    iov = client.io.make_iovec(client.memory, str(client.mount), block_size=2 * BLOCK)
    client.reads.prepare(iov[BLOCK : 3 * BLOCK], True, client.fd, 0)
    client.reads.prepare(iov[0 : 2 * BLOCK], True, client.fd, 0, "within")
    results = {done.userdata: done.result for done in wait(client.reads, 2)}
    assert results == {None: -errno.EINVAL, "within": 2 * BLOCK}


def test_what_is_not_submitted_may_never_run(client: Client) -> None:
    ran = 0
    for _ in range(40):  # some start at once, as with the library
        client.reads.prepare(client.iov[0:BLOCK], True, client.fd, 0)
        done = client.reads.wait(min_results=1, timeout=timedelta(milliseconds=2))
        ran += len(done)
        if not done:
            wait(client.reads)
    assert 0 < ran < 40


def test_waiting_ends_at_its_deadline_with_what_has_come(client: Client) -> None:
    hold = threading.Event()
    client.native.faults.choose = lambda request: (
        client.native.Spoil(hold=hold) if request.offset else None
    )
    client.reads.prepare(client.iov[0:BLOCK], True, client.fd, 0)
    client.reads.prepare(client.iov[BLOCK : 2 * BLOCK], True, client.fd, BLOCK)
    done = client.reads.submit().wait(min_results=2, timeout=timedelta(seconds=0.3))
    assert [entry.result for entry in done] == [BLOCK]
    hold.set()
    assert len(wait(client.reads)) == 1


def test_two_threads_in_one_ring_are_refused(client: Client) -> None:
    entered = threading.Event()

    def wait_long() -> None:
        entered.set()
        client.reads.wait(min_results=1, timeout=timedelta(seconds=20))

    waiter = threading.Thread(target=wait_long)
    waiter.start()
    entered.wait(20)
    while not client.reads.ior._waiting.locked():
        pass
    with pytest.raises(RuntimeError, match="two threads"):
        client.reads.wait(timeout=timedelta(0))
    client.reads.prepare(client.iov[0:BLOCK], True, client.fd, 0)  # asking is another matter
    client.reads.submit()
    waiter.join(20)


def test_rings_need_a_mount(client: Client, tmp_path: Path) -> None:
    with refusal(errno.ENOENT):
        client.io.make_ioring(str(tmp_path), 1)
