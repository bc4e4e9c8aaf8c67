"""The messages of Linux's FUSE protocol, as far as the stand-in of a 3FS mount needs them."""

from __future__ import annotations

import os
import struct
from enum import IntEnum


class Op(IntEnum):
    """What the kernel asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    IOCTL = 39
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52


IN_HEADER = struct.Struct("<IIQQIIIHH")
"""Length, op, unique, node, uid, gid, pid, extensions, padding."""
FORGET_ONE = struct.Struct("<QQ")
"""Node, lookups: an entry of BATCH_FORGET."""
SETATTR_IN = struct.Struct("<II6Q8I")
"""Valid, padding, fh, size, lock owner, three times, three nanoseconds, mode, -, uid, gid, -."""
FILE_IN = struct.Struct("<QQII")
"""Fh, offset, size, flags: READ, WRITE and READDIR; WRITE's bytes follow at 40."""
WRITE_HEADER_BYTES = 40
MAX_WRITE = 1 << 20

_OUT_HEADER = struct.Struct("<IiQ")
_ATTR = struct.Struct("<6Q10I")
_INIT_OUT = struct.Struct("<4I2H2I2H2I24x")
_BIG_WRITES, _PARALLEL_DIROPS, _MAX_PAGES = 1 << 5, 1 << 18, 1 << 22


def reply(unique: int, body: bytes = b"", error: int = 0) -> bytes:
    """A whole answer; `error` is an errno."""
    return _OUT_HEADER.pack(_OUT_HEADER.size + len(body), -error, unique) + body


def init_out() -> bytes:
    """Protocol 7.31, writes of 1 MiB, nothing else that is optional."""
    flags = _BIG_WRITES | _PARALLEL_DIROPS | _MAX_PAGES
    return _INIT_OUT.pack(7, 31, 0, flags, 16, 12, MAX_WRITE, 1, MAX_WRITE // 4096, 0, 0, 0)


def attr(status: os.stat_result, node: int, size: int) -> bytes:
    """A file's attributes."""
    times = (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
    return _ATTR.pack(
        *(node, size, -(-size // 512), *(t // 10**9 for t in times), *(t % 10**9 for t in times)),
        *(status.st_mode, status.st_nlink, status.st_uid, status.st_gid, 0, 1 << 20, 0),
    )


def attr_out(attributes: bytes, valid_s: int) -> bytes:
    """The answer to GETATTR and SETATTR."""
    return struct.pack("<QII", valid_s, 0, 0) + attributes


def entry_out(node: int, attributes: bytes, valid_s: int) -> bytes:
    """The answer to LOOKUP and to all that make a name."""
    return struct.pack("<QQQQII", node, 0, valid_s, valid_s, 0, 0) + attributes


def no_entry_out(valid_s: int) -> bytes:
    """The answer to LOOKUP that lets the kernel remember that there is no such name."""
    return entry_out(0, bytes(_ATTR.size), valid_s)


def open_out(handle: int, is_direct: bool) -> bytes:
    """The answer to OPEN, OPENDIR and, after an entry, to CREATE."""
    return struct.pack("<QII", handle, int(is_direct), 0)


def statfs_out(status: os.statvfs_result) -> bytes:
    """The answer to STATFS."""
    return struct.pack(
        "<5Q4I24x",
        *(status.f_blocks, status.f_bfree, status.f_bavail, status.f_files, status.f_ffree),
        *(status.f_bsize, status.f_namemax, status.f_frsize, 0),
    )


def dirent(node: int, offset: int, kind: int, name: bytes) -> bytes:
    """An entry of READDIR; `kind` is the type in `st_mode >> 12`."""
    entry = struct.pack("<QQII", node, offset, len(name), kind) + name
    return entry + bytes(-len(entry) % 8)
