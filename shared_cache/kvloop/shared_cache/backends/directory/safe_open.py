"""Opening what lies under a directory without following a symlink on the way."""

from __future__ import annotations

import ctypes
import errno
import os

_SYS_OPENAT2 = 437  # the same on every architecture of Linux
_RESOLVE_NO_SYMLINKS = 0x04
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def open_under(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """Open the relative `path` under an open directory; a symlink in it is ELOOP or ENOTDIR.

    `mode` is that of a file which O_TMPFILE makes.
    """
    fd = _openat2(directory, path, flags | os.O_CLOEXEC, mode)
    return fd if fd is not None else _walk(directory, path, flags | os.O_CLOEXEC, mode)


def _openat2(directory: int, path: str, flags: int, mode: int) -> int | None:
    """None where the kernel, or a sandbox around the process, does not have the call."""
    how = _OpenHow(flags, mode, _RESOLVE_NO_SYMLINKS)
    encoded = os.fsencode(path)
    while True:
        number = ctypes.c_long(_SYS_OPENAT2)
        size = ctypes.c_size_t(ctypes.sizeof(how))
        fd: int = _libc.syscall(number, directory, encoded, ctypes.byref(how), size)
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        if code in (errno.ENOSYS, errno.EPERM):
            return None
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code), path)


def _walk(directory: int, path: str, flags: int, mode: int) -> int:
    """The same, part by part."""
    *parents, name = path.split("/")
    current = os.dup(directory)
    try:
        for parent in parents:
            inner = os.open(
                parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current
            )
            os.close(current)
            current = inner
        return os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=current)
    finally:
        os.close(current)
