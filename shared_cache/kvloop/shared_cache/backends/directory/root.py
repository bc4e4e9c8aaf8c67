"""The root that a store lies under: opened anew for each call, so that a lost mount is seen."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvloop.shared_cache.backends.directory.safe_open import open_under

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MAKE_ATTEMPTS = 3


class StoreRoot:
    """A directory; made where it is missing. Nothing under it is reached through a symlink."""

    def __init__(self, path: Path, mount_point: Path | None = None) -> None:
        """Raise OSError where the root cannot be had, or where nothing is mounted."""
        if mount_point is not None and not os.path.ismount(mount_point):
            raise OSError(errno.ENODEV, "nothing is mounted there", str(mount_point))
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._device = os.stat(path).st_dev

    @contextmanager
    def open(self) -> Iterator[OpenRoot]:
        """Raise OSError where the root is gone, or has become another file system."""
        fd = os.open(self.path, _DIRECTORY)
        try:
            if os.fstat(fd).st_dev != self._device:
                raise OSError(errno.ENODEV, "its file system is no longer mounted", str(self.path))
            yield OpenRoot(fd)
        finally:
            os.close(fd)


class OpenRoot:
    """Paths are relative to the root, of plain names; a symlink in one is ELOOP or ENOTDIR."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """Open a file or directory that is there, or with O_TMPFILE a file in a directory."""
        return open_under(self.fd, path, flags, mode)

    def directory(self, path: str) -> int:
        """Open a directory to name what is in it."""
        return self.open(path, _DIRECTORY)

    def made_directory(self, path: str) -> int:
        """The same, making it and those above it where they are missing."""
        for _ in range(_MAKE_ATTEMPTS):  # another process may remove empty ones meanwhile
            try:
                return self.directory(path)
            except FileNotFoundError:
                self._make(path)
        return self.directory(path)

    def size(self, path: str) -> int | None:
        """Bytes of a regular file; None where there is none, or something else."""
        try:
            fd = self.open(path, os.O_PATH)
        except FileNotFoundError:
            return None
        try:
            return regular_size(fd)
        finally:
            os.close(fd)

    def _make(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        above = self.made_directory(parent) if parent else os.dup(self.fd)
        try:
            os.mkdir(name, dir_fd=above)
        except FileExistsError:
            pass
        finally:
            os.close(above)


def regular_size(fd: int) -> int | None:
    """Bytes of the open file; None where it is not a regular one."""
    status = os.fstat(fd)
    if stat.S_ISLNK(status.st_mode):  # opened itself, as O_PATH does without openat2
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return status.st_size if stat.S_ISREG(status.st_mode) else None
