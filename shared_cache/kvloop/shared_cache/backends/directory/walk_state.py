"""What the processes of several machines tell each other of a store: who walks, and the sum."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

import msgspec

from kvloop.shared_cache.backends.directory.layout import TOP, WALK
from kvloop.shared_cache.backends.directory.root import OpenRoot

_MAX_BYTES = 4096


class WalkState(msgspec.Struct, frozen=True, kw_only=True):
    """The content of one small file, replaced as a whole; the last writer wins."""

    walker: str = ""
    """Who walks, or is about to."""
    walker_until: float = 0.0
    """He is taken for dead after that; seconds since the epoch."""
    num_bytes: int = 0
    """Of all objects, at the end of the last walk."""
    walked_at: float = 0.0


def read_state(root: OpenRoot) -> WalkState:
    """What was written last; all zero where nothing was, or it is damaged."""
    try:
        fd = root.open(WALK, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return WalkState()
    try:
        return msgspec.json.decode(os.read(fd, _MAX_BYTES), type=WalkState)
    except msgspec.DecodeError:
        return WalkState()
    finally:
        os.close(fd)


def write_state(root: OpenRoot, state: WalkState, writer: str) -> None:
    """Replace it; `writer` keeps those apart who do so at once. Raises OSError."""
    folder = root.made_directory(TOP)
    name = WALK.rpartition("/")[2]
    tmp = f"{name}-{writer}"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(tmp, flags, 0o640, dir_fd=folder)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.ELOOP, "is no regular file", tmp)
            os.write(fd, msgspec.json.encode(state))
        finally:
            os.close(fd)
        os.rename(tmp, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(tmp, dir_fd=folder)
        raise
    finally:
        os.close(folder)
