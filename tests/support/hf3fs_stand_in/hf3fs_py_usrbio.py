"""Stands in for 3FS's native client `hf3fs_py_usrbio` in tests: its calls, and its rules.

Real bytes go to real files, by threads that play the daemon: they map the shared memory by the
name that its link in `<mount>/3fs-virt/iovs` gives, start requests when they are prepared or only
once they are submitted, and finish them in any order. A broken rule raises what the library raises,
or gives the result that it gives. Stricter than it: slices of iovecs, offsets and lengths must be
multiples of 4 KiB, and two threads in one ring at once are an error. `faults` spoils requests.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

ALIGNMENT = 4096
_THREADS_PER_RING = 2
_GET_MAGIC, _MAGIC = 0x80046803, (0x8F3F5FFF).to_bytes(4, "little")


@dataclass(frozen=True)
class Request:
    """What a fault is chosen by."""

    is_read: bool
    path: str
    offset: int
    length: int


@dataclass(frozen=True, kw_only=True)
class Spoil:
    """What happens to a request."""

    error: int | None = None
    """Fails with this errno."""
    max_bytes: int | None = None
    """Moves no more than this."""
    hold: threading.Event | None = None
    """Does not run before this is set."""


@dataclass
class Faults:
    """Set by tests."""

    choose: Callable[[Request], Spoil | None] = field(default=lambda _: None)


class Live:
    """What was made and is not given back yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts = dict.fromkeys(("iovecs", "rings", "files"), 0)

    def add(self, what: str, number: int) -> None:
        with self._lock:
            self.counts[what] += number


faults = Faults()
live = Live()
made: list[dict[str, Any]] = []
"""What every iovec and ring was made with."""
_files: dict[int, _File] = {}
_files_lock = threading.Lock()
_mounts: set[str] = set()


class _File:
    """A registered file; it has a descriptor of its own for as long as a request uses it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.dup = os.dup(fd)
        self.access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
        self.path = os.readlink(f"/proc/self/fd/{fd}")
        self._live = live
        live.add("files", 1)

    def __del__(self) -> None:
        with suppress(OSError):
            os.close(self.dup)
        self._live.add("files", -1)


class _Memory:
    """Shared memory as the daemon maps it."""

    def __init__(self, link: Path, mount: str, block_size: int) -> None:
        target = Path(os.readlink(link))
        if target.parent != Path("/dev/shm") or not target.is_file():
            raise refusal(errno.EINVAL)
        with target.open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), 0)
        self.link = link
        self.mount = mount
        self.block_size = block_size
        self._live = live
        live.add("iovecs", 1)

    def __del__(self) -> None:
        if hasattr(self, "_live"):
            self._live.add("iovecs", -1)


class iovec:
    """Shared memory, or a slice of it; the result of a request is left in its slice."""

    def __init__(
        self,
        base: Any,
        id: str,  # noqa: A002 - the library's name
        hf3fs_mount_point: str,
        block_size: int = 0,
        numa: int = -1,
    ) -> None:
        with memoryview(base) as view:
            if view.readonly:
                raise BufferError("the buffer is not writable")
            size = view.nbytes
        suffix = f".b{block_size}" if block_size else ""
        link = _registry(hf3fs_mount_point) / f"{uuid.UUID(id)}{suffix}"
        self._memory = _Memory(link, hf3fs_mount_point, block_size)
        self.start, self.size = 0, size
        self.result = 0
        self.userdata: Any = None
        made.append({"kind": "iovec", "bytes": size, "block_size": block_size, "numa": numa})

    @property
    def base_off(self) -> int:
        return self.start

    def __getitem__(self, part: slice) -> iovec:
        start, stop, step = part.indices(self.size)
        if step != 1:
            raise ValueError("step not 1 when slicing iovec")
        piece = object.__new__(iovec)
        piece._memory = self._memory
        piece.start, piece.size = self.start + start, max(0, stop - start)
        piece.result, piece.userdata = 0, None
        return piece


@dataclass
class _Entry:
    """A request in a ring."""

    part: iovec
    file: _File
    offset: int
    userdata: Any
    is_submitted: bool


class _Queue:
    """A ring as the daemon sees it."""

    def __init__(self, mount: str, is_read: bool) -> None:
        self.mount = mount
        self.is_read = is_read
        self.changed = threading.Condition()
        self.todo: list[_Entry] = []
        self.done: list[iovec] = []
        self.is_open = True
        self.random = random.Random(7)

    def serve(self) -> None:
        while (entry := self._next()) is not None:
            entry.part.result = self._run(entry)
            entry.part.userdata = entry.userdata
            with self.changed:
                self.done.insert(self.random.randint(0, len(self.done)), entry.part)
                del entry
                self.changed.notify_all()

    def _next(self) -> _Entry | None:
        with self.changed:
            while self.is_open:
                ready = [i for i, entry in enumerate(self.todo) if entry.is_submitted]
                if ready:
                    return self.todo.pop(self.random.choice(ready))
                self.changed.wait()
            return None

    def _run(self, entry: _Entry) -> int:
        part, memory = entry.part, entry.part._memory
        spoil = faults.choose(Request(self.is_read, entry.file.path, entry.offset, part.size))
        if spoil is not None and spoil.hold is not None:
            spoil.hold.wait(60)
        if spoil is not None and spoil.error is not None:
            return -spoil.error
        if memory.mount != self.mount or not memory.link.is_symlink():
            return -errno.EINVAL  # this daemon knows no such memory
        block = memory.block_size
        if block and part.start // block != (part.start + part.size - 1) // block:
            return -errno.EINVAL
        length = part.size
        if spoil is not None and spoil.max_bytes is not None:
            length = min(length, spoil.max_bytes)
        try:
            return self._move(entry, memoryview(memory.map)[part.start : part.start + length])
        except OSError as error:
            return -(error.errno or errno.EIO)

    def _move(self, entry: _Entry, view: memoryview) -> int:
        move = os.preadv if self.is_read else os.pwritev
        done = 0
        while done < view.nbytes:
            count = move(entry.file.dup, [view[done:]], entry.offset + done)
            if count == 0:
                break
            done += count
        return done


class ioring:
    """A queue of requests of one direction, for one thread that asks and one that waits."""

    def __init__(
        self,
        hf3fs_mount_point: str,
        entries: int,
        for_read: bool = True,
        io_depth: int = 0,
        priority: int | None = None,
        timeout: int | None = None,
        numa: int = -1,
        flags: int = 0,
    ) -> None:
        _registry(hf3fs_mount_point)
        if entries <= 0 or (timeout or 0) < 0 or io_depth > 0:
            raise refusal(errno.EINVAL)
        self.entries = entries
        self._num_used = 0
        self._asking, self._waiting = threading.Lock(), threading.Lock()
        self._queue = _Queue(hf3fs_mount_point, for_read)
        for _ in range(_THREADS_PER_RING):
            threading.Thread(target=self._queue.serve, name="hf3fs-daemon", daemon=True).start()
        self._live = live
        live.add("rings", 1)
        made.append({"kind": "ring", "entries": entries, "for_read": for_read, "numa": numa})

    def __del__(self) -> None:
        if hasattr(self, "_queue"):
            with self._queue.changed:
                self._queue.is_open = False
                self._queue.changed.notify_all()
            self._live.add("rings", -1)

    def prepare(self, iov: iovec, read: bool, fd: int, off: int, userdata: Any = None) -> ioring:
        if type(iov) is not iovec:
            raise TypeError(f"prepare(): incompatible function arguments: {type(iov).__name__}")
        if read != self._queue.is_read or iov.size == 0:
            raise refusal(errno.EINVAL)
        if any(number % ALIGNMENT for number in (iov.start, iov.size, off)):
            raise refusal(errno.EINVAL)
        with _only_one(self._asking):
            with _files_lock:
                file = _files.get(abs(fd))
            if file is None:
                raise refusal(errno.EBADF)
            if file.access == (os.O_WRONLY if read else os.O_RDONLY):
                raise refusal(errno.EACCES)
            with self._queue.changed:
                if self._num_used == self.entries:
                    raise refusal(errno.EAGAIN)
                self._num_used += 1
                is_eager = self._queue.random.random() < 0.5
                self._queue.todo.append(_Entry(iov, file, off, userdata, is_eager))
                self._queue.changed.notify()
        return self

    def submit(self) -> ioring:
        with _only_one(self._asking), self._queue.changed:
            for entry in self._queue.todo:
                entry.is_submitted = True
            self._queue.changed.notify_all()
        return self

    def wait(
        self, *, max_results: int = 0, min_results: int = 0, timeout: timedelta | None = None
    ) -> list[iovec]:
        if timeout is not None and not isinstance(timeout, timedelta):
            raise TypeError("wait(): incompatible function arguments")
        deadline = None if timeout is None else time.monotonic() + timeout.total_seconds()
        most = max(max_results, min_results, 1)
        with _only_one(self._waiting), self._queue.changed:
            while len(self._queue.done) < min_results:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._queue.changed.wait(left)
            out, self._queue.done = self._queue.done[:most], self._queue.done[most:]
            self._num_used -= len(out)
        return out


def register_fd(fd: int, flags: int = 0) -> None:
    """Make a file known to the rings; EBADF where it is none of 3FS's, EINVAL where it is known."""
    if not _is_3fs(fd):
        raise refusal(errno.EBADF)
    with _files_lock:
        if fd in _files:
            raise refusal(errno.EINVAL)
        file = _File(fd)
        if file.dup in _files:
            raise refusal(errno.EINVAL)
        _files[fd] = _files[file.dup] = file


def deregister_fd(fd: int) -> None:
    """Forget a file; to be called before it is closed, else nothing is forgotten."""
    if not _is_3fs(fd):
        return
    with _files_lock:
        file = _files.get(fd)
        if file is not None:
            _files.pop(file.dup, None)
            _files.pop(file.fd, None)


def force_fsync(fd: int) -> int:
    """Have the file's length known to all."""
    os.fsync(fd)
    return 0


def hardlink(target: str, link_name: str) -> None:
    """Give a file another name."""
    os.link(target, link_name)


def extract_mount_point(path: str) -> str | None:
    """The directory above a path in which 3FS is mounted."""
    real = Path(os.path.realpath(path))
    folders = (folder for folder in (real, *real.parents) if (folder / "3fs-virt").is_dir())
    return next((str(folder) for folder in folders), None)


def refusal(number: int) -> OSError:
    """The library's error for an errno."""
    return OSError(number, os.strerror(number))


def _registry(mount: str) -> Path:
    """Where a mount's shared memory is registered."""
    registry = Path(mount) / "3fs-virt" / "iovs"
    if not registry.is_dir():
        raise refusal(errno.ENOENT)
    _mounts.add(os.path.realpath(mount))
    return registry


def _is_3fs(fd: int) -> bool:
    """Asks the file's daemon, as the library does; in plain directories the path tells."""
    try:
        return fcntl.ioctl(fd, _GET_MAGIC, bytes(4)) == _MAGIC
    except OSError as error:
        if error.errno != errno.ENOTTY:
            return False
    path = Path(os.readlink(f"/proc/self/fd/{fd}"))
    return any(path.is_relative_to(mount) for mount in _mounts)


@contextmanager
def _only_one(lock: threading.Lock) -> Iterator[None]:
    if not lock.acquire(blocking=False):
        raise RuntimeError("two threads use one ring at once")
    try:
        yield
    finally:
        lock.release()
