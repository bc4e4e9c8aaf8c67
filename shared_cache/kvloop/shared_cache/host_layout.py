"""Where a page lies in the host pool: one table of offsets and strides for each layout.

    page_first_direct   [page, layer, k|v, token, head, size], the trailer behind each page: the
                        page object itself, so that storage reads and writes it without a copy
    page_first          [page, token, layer, k|v, head, size]
    layer_first         [layer, k|v, page, token, head, size]

The last two hold payload only, with the scales of a codec in an array of their own. Each head
group is an array of its own; arrays begin at multiples of 4 KiB.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kvloop.shared_cache.hicache_names import HostLayout
from kvloop.shared_cache.page_object import ALIGNMENT, TRAILER_BYTES, PageShape

log = logging.getLogger(__name__)

_SLOT, _LAYER, _HALF, _TOKEN, _HEAD, _SIZE = range(6)
_ORDERS: dict[HostLayout, tuple[int, ...]] = {
    "page_first_direct": (_SLOT, _LAYER, _HALF, _TOKEN, _HEAD, _SIZE),
    "page_first": (_SLOT, _TOKEN, _LAYER, _HALF, _HEAD, _SIZE),
    "layer_first": (_LAYER, _HALF, _SLOT, _TOKEN, _HEAD, _SIZE),
}
"""Memory order of the axes, outermost first."""
_SCALES_ORDERS: dict[HostLayout, tuple[int, ...]] = {
    "page_first_direct": (0, 1, 2, 3),
    "page_first": (0, 1, 2, 3),
    "layer_first": (1, 2, 0, 3),
}
_FLOAT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayPlace:
    """One strided array in the pool's memory; all in bytes."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """The memory of a whole pool, one entry for each head group."""

    num_bytes: int
    payloads: tuple[ArrayPlace, ...]
    """[slot, layer, k|v, token, head, head size in bytes]."""
    scales: tuple[ArrayPlace, ...]
    """[slot, layer, k|v, head] of float32; empty where the codec is none."""


def effective_layout(layout: HostLayout, io_backend: Literal["kernel", "direct"]) -> HostLayout:
    """The layout that an I/O backend can serve: `direct` copies blocks, and page_first has none.

    A token's bytes of one layer lie apart from the next token's there, so that a copy of each
    would be far too small; page_first_direct takes its place, as in SGLang.
    """
    if layout == "page_first" and io_backend == "direct":
        log.warning(
            "--hicache-mem-layout page_first cannot be copied with --hicache-io-backend direct: "
            "using page_first_direct"
        )
        return "page_first_direct"
    return layout


def page_bytes(shape: PageShape, layout: HostLayout) -> int:
    """Host memory that one page takes."""
    if layout == "page_first_direct":
        return shape.slot_bytes
    return shape.head_groups * (shape.payload_bytes + shape.scales_bytes)


def plan_pool(shape: PageShape, num_slots: int, layout: HostLayout) -> PoolPlan:
    """Place every array of a pool."""
    if layout == "page_first_direct":
        return _plan_objects(shape, num_slots)
    payload = _aligned(num_slots * shape.payload_bytes)
    scales = _aligned(num_slots * shape.scales_bytes)
    groups = range(shape.head_groups)
    first_scales = len(groups) * payload
    return PoolPlan(
        num_bytes=first_scales + len(groups) * scales,
        payloads=tuple(_payload(shape, num_slots, layout, g * payload) for g in groups),
        scales=tuple(_scales(shape, num_slots, layout, first_scales + g * scales) for g in groups)
        if shape.scales_bytes
        else (),
    )


def _plan_objects(shape: PageShape, num_slots: int) -> PoolPlan:
    slot = shape.slot_bytes
    starts = [group * shape.object_bytes for group in range(shape.head_groups)]
    end = shape.payload_bytes + TRAILER_BYTES
    layout: HostLayout = "page_first_direct"
    return PoolPlan(
        num_bytes=num_slots * slot,
        payloads=tuple(_payload(shape, num_slots, layout, at, slot) for at in starts),
        scales=tuple(_scales(shape, num_slots, layout, at + end, slot) for at in starts)
        if shape.scales_bytes
        else (),
    )


def _payload(
    shape: PageShape, num_slots: int, layout: HostLayout, offset: int, slot_stride: int = 0
) -> ArrayPlace:
    sizes = (
        num_slots,
        shape.num_layers,
        2,
        shape.page_size,
        shape.group_heads,
        shape.head_size * shape.payload_itemsize,
    )
    return _place(offset, sizes, _ORDERS[layout], 1, slot_stride)


def _scales(
    shape: PageShape, num_slots: int, layout: HostLayout, offset: int, slot_stride: int = 0
) -> ArrayPlace:
    sizes = (num_slots, shape.num_layers, 2, shape.group_heads)
    return _place(offset, sizes, _SCALES_ORDERS[layout], _FLOAT, slot_stride)


def _place(
    offset: int, sizes: tuple[int, ...], order: Sequence[int], itemsize: int, slot_stride: int
) -> ArrayPlace:
    """Contiguous in `order`, but for the distance of two slots where that is given."""
    strides = [0] * len(sizes)
    step = itemsize
    for axis in reversed(order):
        strides[axis] = step
        step *= sizes[axis]
    if slot_stride:
        strides[_SLOT] = slot_stride
    return ArrayPlace(offset=offset, shape=sizes, strides=tuple(strides))


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT
