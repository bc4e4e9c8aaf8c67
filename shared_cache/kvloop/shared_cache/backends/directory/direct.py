"""Whether a file system takes O_DIRECT: found by doing it."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
from collections.abc import Iterator

from kvloop.shared_cache.backends.directory.faults import NO_ANONYMOUS_FILES, NO_ROOM
from kvloop.shared_cache.backends.directory.root import OpenRoot
from kvloop.shared_cache.page_object import ALIGNMENT

_CANNOT_TELL = NO_ROOM | {errno.EROFS, errno.EACCES, errno.EPERM}


def can_do_direct(root: OpenRoot) -> bool | None:
    """Write and read a page's alignment in a file that is gone afterwards; None: cannot tell."""
    with mmap.mmap(-1, ALIGNMENT) as block:
        try:
            with _file(root) as fd:
                return os.pwritev(fd, [block], 0) == os.preadv(fd, [block], 0) == ALIGNMENT
        except OSError as error:
            if error.errno == errno.EINVAL:
                return False
            if error.errno in _CANNOT_TELL:
                return None
            raise


@contextlib.contextmanager
def _file(root: OpenRoot) -> Iterator[int]:
    flags = os.O_RDWR | os.O_DIRECT | os.O_CLOEXEC
    name = None
    try:
        fd = os.open(".", flags | os.O_TMPFILE, 0o600, dir_fd=root.fd)
    except OSError as error:
        if error.errno not in NO_ANONYMOUS_FILES:
            raise
        name = f".kvloop-direct-{secrets.token_hex(8)}"
        fd = os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=root.fd)
    try:
        yield fd
    finally:
        os.close(fd)
        if name is not None:
            os.unlink(name, dir_fd=root.fd)
