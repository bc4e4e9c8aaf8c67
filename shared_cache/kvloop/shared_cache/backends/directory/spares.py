"""Files made ahead of their writers: without names, and with room for one object each.

Finding room for a new file takes a file system about as long as a fifth of its 1 MiB's way to a
fast disk; a thread does it while other pages' bytes move.
"""

from __future__ import annotations

import collections
import contextlib
import os
import threading

from kvloop.shared_cache.backends.directory.root import OpenRoot, StoreRoot

MAX_SPARE_BYTES = 128 << 20
_FROM_BYTES = 256 << 10  # smaller ones are not worth the descriptors
_IDLE_S = 5.0
_LEAVE_FREE = 16  # times the spares' bytes: with less room on the file system none are made
_MODE = 0o640


class Spares:
    """At most `limit` files of `num_bytes`; given up where they are not used for some seconds.

    Thread-safe; raises nothing. The thread begins with the first demand.
    """

    def __init__(self, root: StoreRoot, num_bytes: int, limit: int, flags: int) -> None:
        self._root = root
        self._num_bytes = num_bytes
        self._limit = min(limit, MAX_SPARE_BYTES // num_bytes) if num_bytes >= _FROM_BYTES else 0
        self._flags = flags | os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC
        self._files: collections.deque[int] = collections.deque()
        self._lock = threading.Lock()
        self._demand = threading.Event()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def take(self) -> int | None:
        """An open file, the caller's from now on; None where there is none yet."""
        if self._limit < 1:
            return None
        self._start()
        self._demand.set()
        try:
            return self._files.popleft()
        except IndexError:
            return None

    def drop(self) -> None:
        """Give their room back."""
        with contextlib.suppress(IndexError):
            while True:
                os.close(self._files.popleft())

    def close(self) -> None:
        """End the thread, and drop them."""
        self._is_closed = True
        self._demand.set()
        if self._thread is not None:
            self._thread.join(_IDLE_S)
        self.drop()

    def _start(self) -> None:
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._is_closed:
                    self._thread = threading.Thread(target=self._run, name="l3-spares", daemon=True)
                    self._thread.start()

    def _run(self) -> None:
        while not self._is_closed:
            is_asked = self._demand.wait(_IDLE_S)
            self._demand.clear()
            if not is_asked:
                self.drop()
            elif not self._is_closed:
                with contextlib.suppress(OSError), self._root.open() as root:
                    self._fill(root)

    def _fill(self, root: OpenRoot) -> None:
        room = os.fstatvfs(root.fd)
        if room.f_bavail * room.f_frsize < _LEAVE_FREE * self._limit * self._num_bytes:
            return
        while len(self._files) < self._limit and not self._is_closed:
            fd = os.open(".", self._flags, _MODE, dir_fd=root.fd)
            try:
                os.posix_fallocate(fd, 0, self._num_bytes)
            except BaseException:
                os.close(fd)
                raise
            self._files.append(fd)
