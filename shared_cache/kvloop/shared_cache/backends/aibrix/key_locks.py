"""Locks on keys that hold between threads and processes of all nodes that share a directory."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class KeyLocks:
    """256 lock files, made as they are needed; freed by the kernel when their holder dies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        """Alone with this key, and with those that share its file; raises OSError."""
        shard = hashlib.sha256(key.encode()).hexdigest()[:2]
        fd = self._open(self._folder / shard)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # of this opening: threads exclude each other too
            yield
        finally:
            os.close(fd)

    def _open(self, path: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o660)
        except FileNotFoundError:
            self._folder.mkdir(exist_ok=True)
            return os.open(path, flags, 0o660)
