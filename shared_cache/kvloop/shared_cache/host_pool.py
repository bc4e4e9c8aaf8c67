"""The host pool (L2): page slots in one block of page-aligned memory that backends may register."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.hicache_names import HostLayout
from kvloop.shared_cache.host_layout import ArrayPlace, plan_pool
from kvloop.shared_cache.memory_limit import available_memory
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.slot_owners import SlotOwners

_GIB = 1 << 30


class HostPool(SlotOwners):
    """Slots for one page each, in any layout; owners are counted (`SlotOwners`); thread-safe.

    Slots start with undefined content. `array`, `view`, `group_view` and `address` are those of
    page objects and exist in layout page_first_direct only; `payload` and `scales` in all.
    """

    def __init__(
        self, shape: PageShape, num_slots: int, layout: HostLayout = "page_first_direct"
    ) -> None:
        """Raise ConfigError where the pool would not fit into the memory that is left."""
        super().__init__(num_slots)
        self.shape = shape
        self.layout: HostLayout = layout
        plan = plan_pool(shape, num_slots, layout)
        self.num_bytes = plan.num_bytes
        _require_memory(self.num_bytes)
        self._memory = mmap.mmap(-1, self.num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._view = memoryview(self._memory)
        self.base_address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._payloads = [self._array(place, np.uint8) for place in plan.payloads]
        self._scales = [self._array(place, np.float32) for place in plan.scales]

    def payload(self, group: int) -> npt.NDArray[np.uint8]:
        """uint8 [slot, layer, k|v, token, head, bytes of a head], strided, writable; no copy."""
        return self._payloads[group]

    def scales(self, group: int) -> npt.NDArray[np.float32] | None:
        """float32 [slot, layer, k|v, head], strided, writable; None where the codec is none."""
        return self._scales[group] if self._scales else None

    @property
    def holds_objects(self) -> bool:
        """Whether a slot is the page object as storage backends read and write it."""
        return self.layout == "page_first_direct"

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """uint8 [num_slots, slot_bytes], a writable view of the pool."""
        assert self.holds_objects, self.layout
        return np.frombuffer(self._memory, np.uint8).reshape(self.num_slots, self.shape.slot_bytes)

    def view(self, slot: int) -> memoryview:
        """The slot's bytes, all groups."""
        start = self._offset(slot, 0)
        return self._view[start : start + self.shape.slot_bytes]

    def group_view(self, slot: int, group: int) -> memoryview:
        """The object of one head group in a slot."""
        start = self._offset(slot, group)
        return self._view[start : start + self.shape.object_bytes]

    def address(self, slot: int, group: int = 0) -> int:
        """Where the object of one head group starts in this process."""
        return self.base_address + self._offset(slot, group)

    def _offset(self, slot: int, group: int) -> int:
        assert self.holds_objects, self.layout
        assert 0 <= slot < self.num_slots and 0 <= group < self.shape.head_groups, (slot, group)
        return slot * self.shape.slot_bytes + group * self.shape.object_bytes

    def _array(self, place: ArrayPlace, dtype: type[np.generic]) -> npt.NDArray[Any]:
        return np.ndarray(place.shape, dtype, self._memory, place.offset, place.strides)


def copy_pages(
    source: HostPool, source_slots: Sequence[int], target: HostPool, target_slots: Sequence[int]
) -> None:
    """Copy pages, scales included, bit for bit between two layouts of the same shape."""
    assert source.shape == target.shape, (source.shape, target.shape)
    for group in range(source.shape.head_groups):
        _copy(source.payload(group), source_slots, target.payload(group), target_slots)
        scales, others = source.scales(group), target.scales(group)
        if scales is not None and others is not None:
            _copy(scales, source_slots, others, target_slots)


def _copy(
    source: npt.NDArray[np.generic],
    source_slots: Sequence[int],
    target: npt.NDArray[np.generic],
    target_slots: Sequence[int],
) -> None:
    for mine, theirs in zip(source_slots, target_slots, strict=True):
        np.copyto(target[theirs], source[mine])


def _require_memory(num_bytes: int) -> None:
    room = available_memory()
    if room is not None and num_bytes > room:
        raise ConfigError(
            f"host pool: {num_bytes / _GIB:.2f} GiB were asked for but only {room / _GIB:.2f} GiB "
            "of memory are left to this process; make the pool smaller (--hicache-size)"
        )
