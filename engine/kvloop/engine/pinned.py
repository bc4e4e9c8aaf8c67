"""Pins the host pool, so that copies are asynchronous and kernels can reach it."""

from __future__ import annotations

import ctypes
import mmap
from typing import Protocol

import torch

from kvloop.engine.cuda_driver import CudaError, register_host, unregister_host
from kvloop.shared_cache.errors import ConfigError


class Memory(Protocol):
    """What must be known of a pool: `kvloop.shared_cache.host_pool.HostPool`."""

    base_address: int
    num_bytes: int


class PinnedMemory:
    """A pool's memory while it is pinned; `close` before the pool goes."""

    def __init__(self, address: int, owns: bool) -> None:
        self._address: int | None = address if owns else None

    def close(self) -> None:
        """Unpin, once, what was pinned here; no copy may be under way."""
        address, self._address = self._address, None
        if address is not None:
            unregister_host(address)


def pin(pool: Memory, device: torch.device | str = "cuda") -> PinnedMemory:
    """Pin the pool's memory for all devices; a pool pinned already stays its first owner's.

    Raises ConfigError where the system does not lock so much memory.
    """
    torch.cuda.synchronize(device)  # makes the device's context this thread's
    _advise_large_pages(pool)
    try:
        owns = register_host(pool.base_address, pool.num_bytes)
    except CudaError as error:
        raise ConfigError(
            f"--hicache-size: {pool.num_bytes / 1e9:.1f} GB of host memory could not be pinned "
            f"({error}); give a smaller size or raise the limit of locked memory (ulimit -l)"
        ) from error
    return PinnedMemory(pool.base_address, owns)


def _advise_large_pages(pool: Memory) -> None:
    """Memory in 2 MiB pages is pinned several times as fast; a kernel may decline."""
    libc = ctypes.CDLL(None)
    page = mmap.PAGESIZE
    first = -(-pool.base_address // page) * page
    length = pool.base_address + pool.num_bytes - first
    libc.madvise(
        ctypes.c_void_p(first), ctypes.c_size_t(max(length, 0)), ctypes.c_int(mmap.MADV_HUGEPAGE)
    )
