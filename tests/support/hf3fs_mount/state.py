"""What the stand-in of a 3FS mount remembers."""

from __future__ import annotations

import collections
import os
import threading
from dataclasses import dataclass, field


class Lengths:
    """What others know of the lengths of files that are being written."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.known: dict[int, int] = {}
        """By inode: the length at the last sync; only while that is not the true one."""

    def of(self, status: os.stat_result) -> int:
        with self.lock:
            return self.known.get(status.st_ino, status.st_size)

    def written(self, status: os.stat_result) -> None:
        """Call before a write."""
        with self.lock:
            self.known.setdefault(status.st_ino, status.st_size)

    def synced(self, inode: int) -> bool:
        """Whether that was news."""
        with self.lock:
            return self.known.pop(inode, None) is not None


@dataclass
class Node:
    """An inode that the kernel knows."""

    fd: int
    """O_PATH"""
    num_lookups: int = 0

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self.fd}"

    def stat(self) -> os.stat_result:
        return os.stat(self.fd)


@dataclass
class Orders:
    """What the test wants."""

    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    failures: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Timeouts:
    """Seconds that the kernel believes an answer; 3FS's defaults."""

    entry_s: int = 30
    attr_s: int = 30
    negative_s: int = 5
    """That there is no such name."""
