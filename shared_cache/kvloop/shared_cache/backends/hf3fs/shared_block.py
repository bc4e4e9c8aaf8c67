"""Memory that this process and 3FS's daemon both map."""

from __future__ import annotations

import os
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import numpy.typing as npt


class SharedBlock:
    """A block of /dev/shm whose pages are all there; owns it until `close`."""

    def __init__(self, num_bytes: int) -> None:
        """Raise OSError where /dev/shm has no room: writing to it later would kill the process."""
        self.memory = SharedMemory(create=True, size=num_bytes)
        try:
            _reserve(f"/dev/shm/{self.memory.name}", num_bytes)
        except OSError:
            self.hide()
            self.memory.close()
            raise

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """uint8, all of it; not to be kept: the block cannot be closed while it is there."""
        assert self.memory.buf is not None  # it is open
        return np.frombuffer(self.memory.buf, np.uint8)

    def hide(self) -> None:
        """Take its name away, so that it ends with its users, even if they are killed."""
        self.memory.unlink()

    def close(self) -> None:
        """Unmap it here; whoever else has mapped it keeps it."""
        self.memory.close()


def _reserve(path: str, num_bytes: int) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.posix_fallocate(fd, 0, num_bytes)
    finally:
        os.close(fd)
