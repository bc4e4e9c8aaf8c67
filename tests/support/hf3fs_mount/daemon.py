"""A FUSE file system that behaves as 3FS's client does, over a directory; run as a process.

    python daemon.py NEGATIVE_TIMEOUT_S BACKING MOUNT_POINT [MOUNT_POINT ...]

Each mount point plays a node of its own; all share BACKING. What it keeps of 3FS's client (its
`src/fuse/FuseOps.cc`): the requests that it has and those that it has not (no O_TMPFILE, no flags
of rename, no fallocate), hard links, a file's length being known to others only once the file was
flushed, synced or closed, and files that are gone at once for readers when their last name is.
It counts what it is asked, and what 3FS's client would ask the metadata service for it:
`meta_read` and `meta_write`, transactions that read and that write. Orders come on stdin, one a
line; answers are lines of JSON on stdout: `counts`, `reset`, `fail OP ERRNO`, `mend`. The end of
stdin unmounts.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import stat
import struct
import sys
import threading
from pathlib import Path
from typing import Any

import fuse_wire as wire
from fuse_wire import Op
from state import Lengths, Node, Orders, Timeouts

_MS_NOSUID_NODEV = 2 | 4
_MNT_DETACH = 2
_THREADS_PER_MOUNT = 4
_READ_BYTES = wire.MAX_WRITE + (64 << 10)
_ROOT = 1
_GET_MAGIC, _MAGIC = 0x80046803, 0x8F3F5FFF
_SET_SIZE = 1 << 3
_META_READ = frozenset({"LOOKUP", "GETATTR", "READDIR", "STATFS"})
_META_WRITE = frozenset(
    {"CREATE", "LINK", "MKDIR", "MKNOD", "RENAME", "RENAME2", "RMDIR", "SETATTR", "UNLINK"}
)
_libc = ctypes.CDLL(None, use_errno=True)


class Mount:
    """One node's mount."""

    def __init__(
        self, backing: Path, point: Path, timeouts: Timeouts, lengths: Lengths, orders: Orders
    ) -> None:
        self._timeouts = timeouts
        self._lengths = lengths
        self._orders = orders
        self._lock = threading.Lock()
        self._nodes = {_ROOT: Node(os.open(backing, os.O_PATH | os.O_DIRECTORY))}
        self._lists: dict[int, list[bytes]] = {}
        self._writers: set[int] = set()
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        self._point = os.fsencode(point)
        options = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other"
        if _libc.mount(
            b"hf3fs.stand-in", self._point, b"fuse.hf3fs", _MS_NOSUID_NODEV, options.encode()
        ):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(point))
        for _ in range(_THREADS_PER_MOUNT):
            threading.Thread(target=self._serve, daemon=True).start()

    def unmount(self) -> None:
        _libc.umount2(self._point, _MNT_DETACH)

    def _serve(self) -> None:
        while True:
            try:
                message = os.read(self._device, _READ_BYTES)
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                continue
            answer = self._answer(message)
            if answer is not None:
                with contextlib.suppress(OSError):  # the asker was interrupted, or is gone
                    os.write(self._device, answer)

    def _answer(self, message: bytes) -> bytes | None:
        _, number, unique, node, *_ = wire.IN_HEADER.unpack_from(message)
        body = memoryview(message)[wire.IN_HEADER.size :]
        name = Op(number).name if number in Op._value2member_map_ else str(number)
        self._count(name)
        handle = getattr(self, f"_{name.lower()}", None)
        try:
            if number in self._SILENT:
                handle(node, body)
                return None
            if failure := self._orders.failures.get(name):
                raise OSError(failure, "ordered")
            if handle is None:
                raise OSError(errno.ENOSYS, name)
            return wire.reply(unique, handle(node, body) or b"")
        except OSError as error:
            return wire.reply(unique, error=error.errno or errno.EIO)
        except Exception as error:
            print(f"{name}: {error!r}", file=sys.stderr, flush=True)
            return wire.reply(unique, error=errno.EIO)

    _SILENT = frozenset({Op.FORGET, Op.BATCH_FORGET, Op.INTERRUPT})

    # --- names ----------------------------------------------------------------------------------

    def _init(self, node: int, body: memoryview) -> bytes:
        return wire.init_out()

    def _lookup(self, node: int, body: memoryview) -> bytes:
        try:
            return self._entry(node, _text(body))
        except FileNotFoundError:
            if not self._timeouts.negative_s:
                raise
            return wire.no_entry_out(self._timeouts.negative_s)

    def _mkdir(self, node: int, body: memoryview) -> bytes:
        mode, _umask = struct.unpack_from("<II", body)
        os.mkdir(_text(body[8:]), mode, dir_fd=self._nodes[node].fd)
        return self._entry(node, _text(body[8:]))

    def _mknod(self, node: int, body: memoryview) -> bytes:
        (mode,) = struct.unpack_from("<I", body)
        os.mknod(_text(body[16:]), mode, dir_fd=self._nodes[node].fd)
        return self._entry(node, _text(body[16:]))

    def _symlink(self, node: int, body: memoryview) -> bytes:
        name, target, _ = bytes(body).split(b"\0", 2)
        os.symlink(target, name, dir_fd=self._nodes[node].fd)
        return self._entry(node, name)

    def _link(self, node: int, body: memoryview) -> bytes:
        (source,) = struct.unpack_from("<Q", body)
        name = _text(body[8:])
        os.link(self._nodes[source].path, name, dst_dir_fd=self._nodes[node].fd)
        return self._entry(node, name)

    def _rename(self, node: int, body: memoryview) -> None:
        (target,) = struct.unpack_from("<Q", body)
        old, new, _ = bytes(body[8:]).split(b"\0", 2)
        self._move(node, old, target, new)

    def _rename2(self, node: int, body: memoryview) -> None:
        target, flags = struct.unpack_from("<QI", body)
        if flags:
            raise OSError(errno.ENOSYS, "3FS has no flags of rename")
        old, new, _ = bytes(body[16:]).split(b"\0", 2)
        self._move(node, old, target, new)

    def _unlink(self, node: int, body: memoryview) -> None:
        name = _text(body)
        folder = self._nodes[node].fd
        with _opened(name, folder) as fd:
            os.unlink(name, dir_fd=folder)
            _empty_if_nameless(fd)

    def _rmdir(self, node: int, body: memoryview) -> None:
        os.rmdir(_text(body), dir_fd=self._nodes[node].fd)

    def _readlink(self, node: int, body: memoryview) -> bytes:
        return os.fsencode(os.readlink("", dir_fd=self._nodes[node].fd))

    def _forget(self, node: int, body: memoryview) -> None:
        self._drop(node, struct.unpack_from("<Q", body)[0])

    def _batch_forget(self, node: int, body: memoryview) -> None:
        (count,) = struct.unpack_from("<I", body)
        for i in range(count):
            self._drop(*wire.FORGET_ONE.unpack_from(body, 8 + 16 * i))

    # --- attributes -----------------------------------------------------------------------------

    def _getattr(self, node: int, body: memoryview) -> bytes:
        return wire.attr_out(self._attr(node, self._nodes[node].stat()), self._timeouts.attr_s)

    def _setattr(self, node: int, body: memoryview) -> bytes:
        fields = wire.SETATTR_IN.unpack_from(body)
        if fields[0] & _SET_SIZE:
            os.truncate(self._nodes[node].path, fields[3])
            self._lengths.synced(self._nodes[node].stat().st_ino)
        return self._getattr(node, body)

    def _statfs(self, node: int, body: memoryview) -> bytes:
        return wire.statfs_out(os.statvfs(self._nodes[_ROOT].path))

    # --- files ----------------------------------------------------------------------------------

    def _open(self, node: int, body: memoryview) -> bytes:
        (flags,) = struct.unpack_from("<I", body)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            self._orders.counts["meta_write"] += 1
        return self._handle(node, flags)

    def _create(self, node: int, body: memoryview) -> bytes:
        flags, mode = struct.unpack_from("<II", body)
        name = _text(body[16:])
        made = flags & (os.O_EXCL | os.O_CREAT) | os.O_WRONLY | os.O_NOFOLLOW
        os.close(os.open(name, made, mode, dir_fd=self._nodes[node].fd))
        entry = self._entry(node, name)
        return entry + self._handle(struct.unpack_from("<Q", entry)[0], flags)

    def _read(self, node: int, body: memoryview) -> bytes:
        fd, offset, size, _ = wire.FILE_IN.unpack_from(body)
        return os.pread(fd, size, offset)

    def _write(self, node: int, body: memoryview) -> bytes:
        fd, offset, size, _ = wire.FILE_IN.unpack_from(body)
        self._lengths.written(os.fstat(fd))
        start = wire.WRITE_HEADER_BYTES
        return struct.pack("<II", os.pwrite(fd, body[start : start + size], offset), 0)

    def _flush(self, node: int, body: memoryview) -> None:
        if self._lengths.synced(os.fstat(struct.unpack_from("<Q", body)[0]).st_ino):
            self._orders.counts["meta_write"] += 1

    _fsync = _flush

    def _release(self, node: int, body: memoryview) -> None:
        (fd,) = struct.unpack_from("<Q", body)
        self._lengths.synced(os.fstat(fd).st_ino)
        if fd in self._writers:  # the metadata service knows who writes, not who reads
            self._writers.discard(fd)
            self._orders.counts["meta_write"] += 1
        os.close(fd)

    def _ioctl(self, node: int, body: memoryview) -> bytes:
        _fh, _flags, command, _arg, _in, num_out = struct.unpack_from("<QIIQII", body)
        if command != _GET_MAGIC or num_out < 4:
            raise OSError(errno.EINVAL, "ioctl")
        return struct.pack("<iIIII", 0, 0, 0, 0, _MAGIC)

    # --- directories ----------------------------------------------------------------------------

    def _opendir(self, node: int, body: memoryview) -> bytes:
        fd = os.open(self._nodes[node].path, os.O_RDONLY | os.O_DIRECTORY)
        entries = []
        for entry in os.scandir(fd):
            kind = entry.stat(follow_symlinks=False).st_mode >> 12
            entries.append((entry.inode(), kind, os.fsencode(entry.name)))
        self._lists[fd] = [
            wire.dirent(inode, i, kind, name) for i, (inode, kind, name) in enumerate(entries, 1)
        ]
        return wire.open_out(fd, False)

    def _readdir(self, node: int, body: memoryview) -> bytes:
        fd, offset, size, _ = wire.FILE_IN.unpack_from(body)
        out = b""
        for entry in self._lists[fd][offset:]:
            if len(out) + len(entry) > size:
                break
            out += entry
        return out

    def _releasedir(self, node: int, body: memoryview) -> None:
        (fd,) = struct.unpack_from("<Q", body)
        self._lists.pop(fd, None)
        os.close(fd)

    # --- the parts ------------------------------------------------------------------------------

    def _count(self, name: str) -> None:
        counts = self._orders.counts
        counts[name] += 1
        counts["meta_read"] += name in _META_READ
        counts["meta_write"] += name in _META_WRITE

    def _handle(self, node: int, flags: int) -> bytes:
        kept = flags & (os.O_ACCMODE | os.O_TRUNC)
        fd = os.open(self._nodes[node].path, kept)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            self._writers.add(fd)
        return wire.open_out(fd, bool(flags & os.O_DIRECT))

    def _entry(self, parent: int, name: bytes) -> bytes:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=self._nodes[parent].fd)
        status = os.stat(fd)
        with self._lock:
            node = self._nodes.setdefault(status.st_ino, Node(fd))
            node.num_lookups += 1
        if node.fd != fd:
            os.close(fd)
        return wire.entry_out(
            status.st_ino, self._attr(status.st_ino, status), self._timeouts.entry_s
        )

    def _attr(self, node: int, status: os.stat_result) -> bytes:
        return wire.attr(status, node, self._lengths.of(status))

    def _move(self, node: int, old: bytes, target: int, new: bytes) -> None:
        source, folder = self._nodes[node].fd, self._nodes[target].fd
        replaced: Any = contextlib.nullcontext()
        with contextlib.suppress(FileNotFoundError):
            replaced = _opened(new, folder)
        with replaced as fd:
            os.rename(old, new, src_dir_fd=source, dst_dir_fd=folder)
            if fd is not None:
                _empty_if_nameless(fd)

    def _drop(self, node: int, num_lookups: int) -> None:
        with self._lock:
            known = self._nodes.get(node)
            if known is None or node == _ROOT:
                return
            known.num_lookups -= num_lookups
            if known.num_lookups <= 0:
                os.close(self._nodes.pop(node).fd)


def _text(body: memoryview) -> bytes:
    return bytes(body).split(b"\0", 1)[0]


class _opened:
    """An O_PATH descriptor of a name; raises at once where there is none."""

    def __init__(self, name: bytes, folder: int) -> None:
        self._fd = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _empty_if_nameless(fd: int) -> None:
    """3FS takes the chunks of a file without a name away, whoever reads it."""
    status = os.stat(fd)
    if status.st_nlink == 0 and stat.S_ISREG(status.st_mode):
        os.truncate(f"/proc/self/fd/{fd}", 0)


def main() -> None:
    backing, *points = map(Path, sys.argv[2:])
    timeouts = Timeouts(negative_s=int(sys.argv[1]))
    (backing / "3fs-virt" / "iovs").mkdir(parents=True, exist_ok=True)
    lengths, orders = Lengths(), Orders()
    mounts = [Mount(backing, point, timeouts, lengths, orders) for point in points]
    print(json.dumps("mounted"), flush=True)
    try:
        for line in sys.stdin:
            print(json.dumps(_obey(orders, line.split())), flush=True)
    finally:
        for mount in mounts:
            mount.unmount()


def _obey(orders: Orders, words: list[str]) -> Any:
    match words:
        case ["counts"]:
            return {name: count for name, count in orders.counts.items() if count}
        case ["reset"]:
            orders.counts.clear()
        case ["fail", op, number]:
            orders.failures[op] = int(number)
        case ["mend"]:
            orders.failures.clear()
    return None


if __name__ == "__main__":
    main()
