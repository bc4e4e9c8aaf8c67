"""The ways that pages take between the device pool and pinned host memory.

`Straight` copies blocks from one to the other. `Staged` goes through a ring of device buffers in
which pages lie as in their objects: a codec needs that, and copy engines are faster with a few
long pieces than with many short ones. One stream fills buffers while another empties them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from kvloop.engine.copy_batch import copy_blocks
from kvloop.engine.cuda_sync import new_stream
from kvloop.engine.kv_pool import KVPool
from kvloop.engine.node_config import IOBackend
from kvloop.engine.page_coder import make_coder
from kvloop.engine.page_grid import Extent, Grid, fused
from kvloop.engine.page_ids import PageIds
from kvloop.engine.page_stage import Stage, StageBuffer, stage_bytes
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape

Copy = Callable[[Grid, PageIds, Grid, PageIds, Extent], None]
"""Queues copies of pages between two grids on the current stream."""
_BUFFER_BYTES = 32 << 20
_NUM_BUFFERS = 3
_PIECE_BYTES = 256 << 10
"""Copy engines reach the bus's rate with pieces of this size."""


class PagePath(Protocol):
    """One direction's way; calls come from one thread at a time."""

    @property
    def first(self) -> torch.cuda.Stream:
        """The stream that must wait for what the pages wait for."""
        ...

    @property
    def last(self) -> torch.cuda.Stream:
        """The stream whose work ends when the copies queued so far have ended."""
        ...

    @property
    def least_layers(self) -> int:
        """Layers that should move in one go."""
        ...

    def copy(self, first_layer: int, num_layers: int, pages: PageIds, slots: PageIds) -> None:
        """Queue the copy of some layers of device `pages` from or to host `slots`."""
        ...


def make_path(
    kv: KVPool, host: HostPool, io_backend: IOBackend, stream: torch.cuda.Stream, *, to_host: bool
) -> PagePath:
    """The fastest way that serves a pool's layout and codec."""
    line = Line(
        ends=make_ends(kv, host),
        shape=host.shape,
        io_backend=io_backend,
        copy=make_copy(io_backend),
        to_host=to_host,
    )
    blocks = fused(line.ends[0].device, line.ends[0].payload, line.payload(1))
    has_long_pieces = host.holds_objects or blocks.tokens > 1
    if host.shape.codec == "none" and (io_backend == "kernel" or not has_long_pieces):
        return Straight(line, stream)
    return Staged(line, stream)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Both ends of one head group's pages."""

    heads: torch.Tensor
    """The device pool's heads of the group: `[layer, k|v, page, token, head, size]`."""
    device: Grid
    payload: Grid
    scales: Grid | None


def make_ends(kv: KVPool, host: HostPool) -> tuple[Ends, ...]:
    """One for each head group."""
    ends = []
    for group in range(host.shape.head_groups):
        heads = kv.tensor.narrow(4, group * host.shape.group_heads, host.shape.group_heads)
        layer, half, page, token = (stride * kv.tensor.itemsize for stride in heads.stride()[:4])
        payload, scales = host.payload(group), host.scales(group)
        ends.append(
            Ends(
                heads=heads,
                device=Grid.of(heads.data_ptr(), (page, layer, half, token)),
                payload=Grid.of(payload.ctypes.data, payload.strides),
                scales=None
                if scales is None
                else Grid.of(scales.ctypes.data, (*scales.strides[:3], 0)),
            )
        )
    return tuple(ends)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What every way of one direction knows."""

    ends: tuple[Ends, ...]
    shape: PageShape
    io_backend: IOBackend
    copy: Copy
    to_host: bool

    def payload(self, num_layers: int) -> Extent:
        """Some layers of one head group's payload."""
        row = self.shape.group_heads * self.shape.head_size * self.shape.payload_itemsize
        return Extent(layers=num_layers, halves=2, tokens=self.shape.page_size, row=row)

    def scales(self, num_layers: int) -> Extent:
        """Some layers of one head group's scales."""
        return Extent(layers=num_layers, halves=2, tokens=1, row=4 * self.shape.group_heads)

    def move(
        self, device: Grid, pages: PageIds, host: Grid, slots: PageIds, extent: Extent
    ) -> None:
        """Queue a copy in this line's direction."""
        if self.to_host:
            self.copy(device, pages, host, slots, extent)
        else:
            self.copy(host, slots, device, pages, extent)


def make_copy(io_backend: IOBackend) -> Copy:
    """The way of copying that a flag names."""
    if io_backend == "direct":
        return _copy_direct
    from kvloop.engine.page_kernel import copy_rows  # Triton is not on every machine

    def copy(
        source: Grid, source_ids: PageIds, target: Grid, target_ids: PageIds, extent: Extent
    ) -> None:
        copy_rows(source, source_ids.tensor, target, target_ids.tensor, extent)

    return copy


def _copy_direct(
    source: Grid, source_ids: PageIds, target: Grid, target_ids: PageIds, extent: Extent
) -> None:
    stream = torch.cuda.current_stream().cuda_stream
    copy_blocks(source, source_ids.host, target, target_ids.host, extent, stream)


class Straight:
    """From one memory to the other, on one stream."""

    least_layers = 1

    def __init__(self, line: Line, stream: torch.cuda.Stream) -> None:
        self.first = self.last = stream
        self._line = line

    def copy(self, first_layer: int, num_layers: int, pages: PageIds, slots: PageIds) -> None:
        """As `PagePath` says."""
        extent = self._line.payload(num_layers)
        with torch.cuda.stream(self.first):
            for ends in self._line.ends:
                device = ends.device.from_layer(first_layer)
                payload = ends.payload.from_layer(first_layer)
                self._line.move(device, pages, payload, slots, extent)


class Staged:
    """Through device buffers: gathered and encoded there, or decoded and scattered from there."""

    def __init__(self, line: Line, stream: torch.cuda.Stream) -> None:
        device, shape = stream.device, line.shape
        self._line = line
        self._coder = make_coder(shape.codec, device)
        self._wire, self._local = stream, new_stream(device, stream.priority)
        self._room = max(_BUFFER_BYTES, shape.payload_bytes)
        num_bytes = stage_bytes(shape, self._room)
        self._buffers = [StageBuffer(num_bytes, device) for _ in range(_NUM_BUFFERS)]
        layer_bytes = line.payload(1).num_bytes
        self._ids = PageIds.first(self._room // layer_bytes, device)
        pieces = _PIECE_BYTES if line.io_backend == "direct" else 0
        self.least_layers = max(1, min(-(-pieces // layer_bytes), shape.num_layers))
        torch.cuda.synchronize(device)

    @property
    def first(self) -> torch.cuda.Stream:
        return self._local if self._line.to_host else self._wire

    @property
    def last(self) -> torch.cuda.Stream:
        return self._wire if self._line.to_host else self._local

    def copy(self, first_layer: int, num_layers: int, pages: PageIds, slots: PageIds) -> None:
        """As `PagePath` says."""
        at_once = self._room // self._line.payload(num_layers).num_bytes
        for ends in self._line.ends:
            for some, theirs in zip(pages.parts(at_once), slots.parts(at_once), strict=True):
                self._pass(ends, (first_layer, num_layers), some, theirs)

    def _pass(self, ends: Ends, layers: tuple[int, int], pages: PageIds, slots: PageIds) -> None:
        buffer = self._buffers.pop(0)
        self._buffers.append(buffer)
        stage = Stage.over(buffer.memory, self._line.shape, len(pages), layers[1])
        heads = ends.heads[layers[0] : layers[0] + layers[1]]
        with torch.cuda.stream(self.first):
            self.first.wait_event(buffer.emptied)
            if self._line.to_host:
                self._coder.to_stage(heads, pages.tensor, stage)
            else:
                self._transfer(ends, layers, stage, slots)
            buffer.filled.record(self.first)
        with torch.cuda.stream(self.last):
            self.last.wait_event(buffer.filled)
            if self._line.to_host:
                self._transfer(ends, layers, stage, slots)
            else:
                self._coder.from_stage(heads, pages.tensor, stage)
            buffer.emptied.record(self.last)

    def _transfer(self, ends: Ends, layers: tuple[int, int], stage: Stage, slots: PageIds) -> None:
        """Between the buffer and the host."""
        (first, count), line = layers, self._line
        ids = self._ids.head(len(slots))
        payload = ends.payload.from_layer(first)
        line.move(stage.payload_grid, ids, payload, slots, line.payload(count))
        if ends.scales is not None:
            scales = ends.scales.from_layer(first)
            line.move(stage.scales_grid, ids, scales, slots, line.scales(count))
