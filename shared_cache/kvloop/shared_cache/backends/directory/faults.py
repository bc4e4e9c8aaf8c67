"""What a file system's errors mean for single objects, and counting them."""

from __future__ import annotations

import errno
import threading

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
FOREIGN = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EISDIR})
"""A symlink, or a file or directory where the other should be."""
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
NO_ANONYMOUS_FILES = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS})


class Counts:
    """Named counters; thread-safe."""

    def __init__(self, *names: str) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(names, 0.0)

    @staticmethod
    def of_faults() -> Counts:
        """Those that `ObjectFaults` counts in."""
        return Counts("no_room", "read_only", "refused", "io_errors")

    def add(self, name: str, count: float = 1.0) -> None:
        """Count."""
        with self._lock:
            self._counts[name] += count

    def snapshot(self) -> dict[str, float]:
        """Totals since the start."""
        with self._lock:
            return dict(self._counts)


class ObjectFaults:
    """The faults of one call: objects that failed are misses, but where all fail the store does.

    Thread-safe.
    """

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._lock = threading.Lock()
        self._errors: list[OSError] = []
        self._num_sound = 0

    def sound(self) -> None:
        """The store has answered for one object."""
        with self._lock:
            self._num_sound += 1

    def add(self, error: OSError) -> None:
        """Count what kept one object from being read or written."""
        if error.errno in NO_ROOM:
            self._counts.add("no_room")
        elif error.errno == errno.EROFS:
            self._counts.add("read_only")
        elif error.errno in FOREIGN:
            self._counts.add("refused")
        else:
            self._counts.add("io_errors")
            with self._lock:
                self._errors.append(error)
            return
        self.sound()

    def raise_if_all_failed(self) -> None:
        """Raise the first error where the store has answered for no object at all."""
        if self._errors and not self._num_sound:
            raise self._errors[0]
