"""The host pool (L2): page slots in one block of page-aligned memory that backends may register."""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.memory_limit import available_memory
from kvloop.shared_cache.page_object import PageShape

_GIB = 1 << 30


class HostPool:
    """Slots of `shape.slot_bytes` bytes, counted by their owners; thread-safe.

    A slot has one owner after `alloc`; `retain` adds one, `free` takes one away, and the slot can
    be allocated again when none is left. So a storage call that outlives its deadline keeps the
    memory it still reads or writes, whatever its caller does. Slots start with undefined content.
    """

    def __init__(self, shape: PageShape, num_slots: int) -> None:
        """Raise ConfigError where the pool would not fit into the memory that is left."""
        if num_slots <= 0:
            raise ConfigError(f"host pool: num_slots must be positive, got {num_slots}")
        self.shape = shape
        self.num_slots = num_slots
        self.num_bytes = num_slots * shape.slot_bytes
        _require_memory(self.num_bytes)
        self._memory = mmap.mmap(-1, self.num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._view = memoryview(self._memory)
        self.array: npt.NDArray[np.uint8] = np.frombuffer(self._memory, np.uint8).reshape(
            num_slots, shape.slot_bytes
        )
        """uint8 [num_slots, slot_bytes], a writable view of the pool."""
        self.base_address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._lock = threading.Lock()
        self._owners = [0] * num_slots
        self._free = list(range(num_slots - 1, -1, -1))

    @property
    def num_free(self) -> int:
        """Slots that can be allocated now."""
        return len(self._free)

    def alloc(self, n: int) -> list[int] | None:
        """Take `n` slots, or none at all where fewer are free."""
        assert n >= 0
        with self._lock:
            if n > len(self._free):
                return None
            slots = [self._free.pop() for _ in range(n)]
            for slot in slots:
                self._owners[slot] = 1
        return slots

    def retain(self, slots: Sequence[int]) -> None:
        """Add an owner to each slot, which must be allocated."""
        with self._lock:
            for slot in slots:
                assert self._owners[slot] > 0, f"slot {slot} is free"
                self._owners[slot] += 1

    def free(self, slots: Sequence[int]) -> None:
        """Take an owner from each slot."""
        with self._lock:
            for slot in slots:
                assert self._owners[slot] > 0, f"slot {slot} was freed twice"
                self._owners[slot] -= 1
                if not self._owners[slot]:
                    self._free.append(slot)

    def view(self, slot: int) -> memoryview:
        """The slot's bytes, all groups."""
        return self._bytes(slot * self.shape.slot_bytes, self.shape.slot_bytes)

    def group_view(self, slot: int, group: int) -> memoryview:
        """The object of one head group in a slot."""
        return self._bytes(self._offset(slot, group), self.shape.object_bytes)

    def address(self, slot: int, group: int = 0) -> int:
        """Where the object of one head group starts in this process."""
        return self.base_address + self._offset(slot, group)

    def _offset(self, slot: int, group: int) -> int:
        assert 0 <= slot < self.num_slots and 0 <= group < self.shape.head_groups, (slot, group)
        return slot * self.shape.slot_bytes + group * self.shape.object_bytes

    def _bytes(self, start: int, length: int) -> memoryview:
        assert 0 <= start <= self.num_bytes - length, start
        return self._view[start : start + length]


def _require_memory(num_bytes: int) -> None:
    room = available_memory()
    if room is not None and num_bytes > room:
        raise ConfigError(
            f"host pool: {num_bytes / _GIB:.2f} GiB were asked for but only {room / _GIB:.2f} GiB "
            "of memory are left to this process; make the pool smaller (--hicache-size)"
        )
