"""Whether a file system takes O_DIRECT: found by doing it."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
from collections.abc import Iterator
from typing import Literal

from kvloop.shared_cache.backends.directory.faults import NO_ANONYMOUS_FILES, NO_ROOM
from kvloop.shared_cache.backends.directory.root import OpenRoot, StoreRoot
from kvloop.shared_cache.page_object import ALIGNMENT
from kvloop.shared_cache.storage_errors import StorageUnavailable

Direct = Literal["auto", "on", "off"]

_CANNOT_TELL = NO_ROOM | {errno.EROFS, errno.EACCES, errno.EPERM}


def is_direct(direct: Direct, root: StoreRoot, name: str) -> bool:
    """Whether a backend of this name opens its files with O_DIRECT; OSError where the root fails.

    Raises StorageUnavailable where that is asked for and the file system cannot.
    """
    if direct == "off":
        return False
    with root.open() as opened:
        is_able = can_do_direct(opened)
    if direct == "on" and is_able is False:
        raise StorageUnavailable(
            f"storage backend {name!r}: direct is 'on', but the file system of {root.path} does "
            "not take O_DIRECT; set it to 'auto' or 'off'"
        )
    return direct == "on" or bool(is_able)


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
