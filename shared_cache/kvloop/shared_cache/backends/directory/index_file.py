"""Where an index lies, and opening it again when it was lost, replaced or spoilt."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from kvloop.shared_cache.backends.directory.index import Index, remove_index

_BACK_OFF_S = 1.0
log = logging.getLogger(__name__)


class IndexFile:
    """At most one open connection; not thread-safe, and raises nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._index: Index | None = None
        self._retry_at = 0.0
        self._last_error = ""
        self.num_faults = 0

    def get(self, *, is_made: bool) -> Index | None:
        """The index, made where `is_made`; None where it cannot be used now."""
        while self._index is None and time.monotonic() >= self._retry_at:
            if not is_made and not self.path.exists():
                return None
            try:
                self._index = Index(self.path, is_made=is_made)
            except sqlite3.Error as error:
                self.failed(error)
        return self._index if time.monotonic() >= self._retry_at else None

    def failed(self, error: sqlite3.Error) -> None:
        """Leave it alone for a while; where it is spoilt, `get` makes a new one at once."""
        self.num_faults += 1
        if str(error) != self._last_error:
            self._last_error = str(error)
            log.warning("the index %s cannot be used: %s", self.path, error)
        if _is_spoilt(error) and self._replace():
            return
        if self._index is None or "locked" in str(error):  # asking again would wait again
            self._retry_at = time.monotonic() + _BACK_OFF_S

    def follow(self) -> None:
        """Let go of a file that is no longer in place: others have another by now."""
        if self._index is not None and not self._index.is_in_place():
            self.close()

    def close(self) -> None:
        """Close the connection; `get` opens another."""
        if self._index is not None:
            with contextlib.suppress(sqlite3.Error):
                self._index.close()
        self._index = None

    def _replace(self) -> bool:
        """Remove the index, unless another process has begun a new one; False: not possible."""
        spoilt = self._index.inode if self._index is not None else _inode(self.path)
        self.close()
        try:
            with _locked(self.path.with_name(self.path.name + "-lock")):
                if _inode(self.path) == spoilt:
                    remove_index(self.path)
        except OSError:  # another process is about to
            return False
        return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def _inode(path: Path) -> int | None:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return None


def _is_spoilt(error: sqlite3.Error) -> bool:
    """Not merely locked, full or unreachable."""
    return type(error) is sqlite3.DatabaseError or str(error).startswith("no such")
