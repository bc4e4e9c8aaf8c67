"""Locks on keys that hold between threads and processes of all nodes that share a directory."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kvloop.shared_cache.backends.aibrix.folders import require_no_link


class KeyLocks:
    """256 lock files, made as they are needed; freed by the kernel when their holder dies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def hold(self, keys: Iterable[str]) -> Iterator[None]:
        """Alone with these keys, and with those that share their files; raises OSError."""
        shards = {hashlib.sha256(key.encode()).hexdigest()[:2] for key in keys}
        with ExitStack() as held:
            for shard in sorted(shards):  # in one order, or two holders could wait for each other
                fd = self._open(self._folder / shard)
                held.callback(os.close, fd)
                fcntl.flock(fd, fcntl.LOCK_EX)  # of this opening: threads exclude each other too
            yield

    def _open(self, path: Path) -> int:
        require_no_link(self._folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(path, flags, 0o660)
        except FileNotFoundError:
            self._folder.mkdir(exist_ok=True)
            return os.open(path, flags, 0o660)
