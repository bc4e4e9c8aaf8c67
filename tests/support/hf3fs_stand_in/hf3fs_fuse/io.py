"""Stands in for 3FS's `hf3fs_fuse.io`: the same calls over the stand-in of its native module."""

from __future__ import annotations

import os
import uuid
from typing import Any

import hf3fs_py_usrbio as native
from hf3fs_py_usrbio import deregister_fd, extract_mount_point, force_fsync, hardlink, register_fd

__all__ = [
    "deregister_fd",
    "extract_mount_point",
    "force_fsync",
    "hardlink",
    "ioring",
    "iovec",
    "make_ioring",
    "make_iovec",
    "register_fd",
]


class iovec:
    """A native iovec and the link by which the daemon knows it; the link goes with the object."""

    def __init__(self, iov: native.iovec, link: str) -> None:
        self.iov = iov
        self.link = link

    def __del__(self) -> None:
        os.unlink(self.link)

    def __getitem__(self, part: slice) -> native.iovec:
        return self.iov[part]


class ioring:
    """A native ring that takes either kind of iovec."""

    def __init__(self, ring: native.ioring) -> None:
        self.ior = ring

    def prepare(self, iov: Any, *args: Any, **kwargs: Any) -> native.ioring:
        return self.ior.prepare(iov.iov if type(iov) is iovec else iov, *args, **kwargs)

    def submit(self) -> native.ioring:
        return self.ior.submit()

    def wait(self, *args: Any, **kwargs: Any) -> list[native.iovec]:
        return self.ior.wait(*args, **kwargs)


def make_iovec(shm: Any, hf3fs_mount_point: str, block_size: int = 0, numa: int = -1) -> iovec:
    """Tell the daemon of a SharedMemory, and wrap it."""
    name = str(uuid.uuid4())
    suffix = f".b{block_size}" if block_size > 0 else ""
    link = f"{hf3fs_mount_point}/3fs-virt/iovs/{name}{suffix}"
    os.symlink(os.path.normpath(f"/dev/shm/{shm.name}"), link)
    return iovec(native.iovec(shm.buf, name, hf3fs_mount_point, block_size, numa), link)


def make_ioring(
    hf3fs_mount_point: str,
    entries: int,
    for_read: bool = True,
    io_depth: int = 0,
    priority: int | None = None,
    timeout: int | None = None,
    numa: int = -1,
    flags: int = 0,
) -> ioring:
    """A ring for requests of one direction."""
    return ioring(
        native.ioring(
            hf3fs_mount_point, entries, for_read, io_depth, priority, timeout, numa, flags
        )
    )
