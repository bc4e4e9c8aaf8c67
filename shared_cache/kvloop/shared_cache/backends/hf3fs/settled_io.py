"""Written files whose length all nodes know, before they get their names."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from kvloop.shared_cache.backends.directory.page_io import PageIO, Transfer
from kvloop.shared_cache.workers import Workers


class SettledIO(PageIO):
    """Another mover of bytes, whose written files are settled; closed with this one.

    3FS learns the true length of a file when a descriptor of it is closed, and files are linked to
    their names while they are still open. Without this another node could find the name with length
    0, and its kernel would believe that for `attr_timeout` (30 s).
    """

    def __init__(self, io: PageIO, num_threads: int) -> None:
        self.is_direct = io.is_direct
        self._io = io
        self._threads = Workers(num_threads, "l3-hf3fs-settle")

    def read(self, transfers: Sequence[Transfer]) -> list[int]:
        return self._io.read(transfers)

    def write(self, transfers: Sequence[Transfer]) -> list[int]:
        return self._threads.map(_settled, transfers, self._io.write(transfers))

    def forget(self, fd: int) -> None:
        self._io.forget(fd)

    def stats(self) -> dict[str, float]:
        return self._io.stats()

    def close(self) -> None:
        self._threads.stop()
        self._io.close()


def settle(fd: int) -> None:
    """Have 3FS find out the true length of an open file; raises OSError."""
    os.close(os.dup(fd))


def _settled(transfer: Transfer, length: int) -> int:
    if length >= 0:
        try:
            settle(transfer.fd)
        except OSError as error:
            return -(error.errno or errno.EIO)
    return length
