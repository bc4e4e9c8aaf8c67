"""The ways that pages take between the device pool and pinned host memory.

`Straight` copies blocks from one to the other. `Staged` goes through a ring of small device
buffers in which pages lie as in their objects: a codec needs that, and so do copy engines where a
page's blocks are not contiguous. One stream fills buffers while another empties them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import torch

from kvloop.engine.codec import code_dtype, decode, encode
from kvloop.engine.copy_batch import copy_blocks
from kvloop.engine.cuda_sync import new_event, new_stream
from kvloop.engine.kv_pool import KVPool
from kvloop.engine.node_config import IOBackend
from kvloop.engine.page_grid import Extent, Grid, fused
from kvloop.engine.page_ids import PageIds
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape

Copy = Callable[[Grid, PageIds, Grid, PageIds, Extent], None]
"""Queues copies of pages between two grids on the current stream."""
_BUFFER_BYTES = 32 << 20
_NUM_BUFFERS = 3


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Both ends of one head group's pages."""

    device: Grid
    payload: Grid
    scales: Grid | None
    heads: torch.Tensor
    """The device pool's heads of the group: `[layer, k|v, page, token, head, size]`."""


def make_ends(kv: KVPool, host: HostPool) -> list[Ends]:
    """One for each head group."""
    ends = []
    for group in range(host.shape.head_groups):
        heads = kv.tensor.narrow(4, group * host.shape.group_heads, host.shape.group_heads)
        layer, half, page, token = (stride * kv.tensor.itemsize for stride in heads.stride()[:4])
        payload, scales = host.payload(group), host.scales(group)
        ends.append(
            Ends(
                device=Grid.of(heads.data_ptr(), (page, layer, half, token)),
                payload=Grid.of(payload.ctypes.data, payload.strides),
                scales=None
                if scales is None
                else Grid.of(scales.ctypes.data, (*scales.strides[:3], 0)),
                heads=heads,
            )
        )
    return ends


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

    def copy(self, first_layer: int, num_layers: int, pages: PageIds, slots: PageIds) -> None:
        """Queue the copy of some layers of device `pages` from or to host `slots`."""
        ...


def make_path(
    kv: KVPool, host: HostPool, io_backend: IOBackend, stream: torch.cuda.Stream, *, to_host: bool
) -> PagePath:
    """The shortest way that serves a pool's layout and codec."""
    ends, copy, shape = make_ends(kv, host), make_copy(io_backend), host.shape
    blocks = fused(ends[0].device, ends[0].payload, payload_extent(shape, shape.num_layers))
    if shape.codec == "none" and (io_backend == "kernel" or blocks.tokens == 1):
        return Straight(ends, shape, copy, stream, to_host=to_host)
    return Staged(ends, shape, copy, stream, dtype=kv.dtype, to_host=to_host)


def payload_extent(shape: PageShape, num_layers: int) -> Extent:
    """Some layers of one head group's payload."""
    row = shape.group_heads * shape.head_size * shape.payload_itemsize
    return Extent(layers=num_layers, halves=2, tokens=shape.page_size, row=row)


class Straight:
    """From one memory to the other, on one stream."""

    def __init__(
        self,
        ends: Iterable[Ends],
        shape: PageShape,
        copy: Copy,
        stream: torch.cuda.Stream,
        *,
        to_host: bool,
    ) -> None:
        self.first = self.last = stream
        self._ends, self._shape, self._copy, self._to_host = list(ends), shape, copy, to_host

    def copy(self, first_layer: int, num_layers: int, pages: PageIds, slots: PageIds) -> None:
        """As `PagePath` says."""
        extent = payload_extent(self._shape, num_layers)
        with torch.cuda.stream(self.first):
            for ends in self._ends:
                device = ends.device.from_layer(first_layer)
                payload = ends.payload.from_layer(first_layer)
                if self._to_host:
                    self._copy(device, pages, payload, slots, extent)
                else:
                    self._copy(payload, slots, device, pages, extent)


class Staged:
    """Through device buffers: gathered and encoded there, or decoded and scattered from there."""

    def __init__(
        self,
        ends: Iterable[Ends],
        shape: PageShape,
        copy: Copy,
        stream: torch.cuda.Stream,
        *,
        dtype: torch.dtype,
        to_host: bool,
    ) -> None:
        self._wire = stream
        self._local = new_stream(stream.device, stream.priority)
        self._ends, self._shape, self._copy, self._to_host = list(ends), shape, copy, to_host
        self._dtype = dtype
        self._room = max(_BUFFER_BYTES, shape.payload_bytes)
        # A page's scales are a float for each head; its payload has a token of that head at least.
        buffer_bytes = self._room + 4 * (self._room // shape.page_size + 16)
        self._buffers = [_Buffer(buffer_bytes, stream.device) for _ in range(_NUM_BUFFERS)]
        smallest = payload_extent(shape, 1).num_bytes
        self._ids = PageIds.first(self._room // smallest, stream.device)
        torch.cuda.synchronize(stream.device)

    @property
    def first(self) -> torch.cuda.Stream:
        return self._local if self._to_host else self._wire

    @property
    def last(self) -> torch.cuda.Stream:
        return self._wire if self._to_host else self._local

    def copy(self, first_layer: int, num_layers: int, pages: PageIds, slots: PageIds) -> None:
        """As `PagePath` says."""
        at_once = self._room // payload_extent(self._shape, num_layers).num_bytes
        for ends in self._ends:
            for some, theirs in zip(pages.parts(at_once), slots.parts(at_once), strict=True):
                self._pass(ends, (first_layer, num_layers), some, theirs)

    def _pass(self, ends: Ends, layers: tuple[int, int], pages: PageIds, slots: PageIds) -> None:
        buffer = self._buffers.pop(0)
        self._buffers.append(buffer)
        stage = _Stage.over(buffer.memory, self._shape, len(pages), layers[1])
        heads = ends.heads[layers[0] : layers[0] + layers[1]]
        with torch.cuda.stream(self.first):
            self.first.wait_event(buffer.emptied)
            if self._to_host:
                self._encode(heads, pages.tensor, stage)
            else:
                self._transfer(ends, layers, stage, slots)
            buffer.filled.record(self.first)
        with torch.cuda.stream(self.last):
            self.last.wait_event(buffer.filled)
            if self._to_host:
                self._transfer(ends, layers, stage, slots)
            else:
                self._decode(heads, pages.tensor, stage)
            buffer.emptied.record(self.last)

    def _encode(self, heads: torch.Tensor, pages: torch.Tensor, stage: _Stage) -> None:
        block = heads.index_select(2, pages).movedim(2, 0)
        if self._shape.codec == "none":
            stage.payload.copy_(block.view(torch.uint8))
            return
        encoded = encode(block, self._shape.codec)
        stage.payload.copy_(encoded.codes.view(torch.uint8))
        assert stage.scales is not None
        stage.scales.copy_(encoded.scales)

    def _decode(self, heads: torch.Tensor, pages: torch.Tensor, stage: _Stage) -> None:
        if self._shape.codec == "none":
            block = stage.payload.view(self._dtype)
        else:
            assert stage.scales is not None
            codes = stage.payload.view(code_dtype(self._shape.codec))
            block = decode(codes, stage.scales, self._dtype)
        heads.index_copy_(2, pages, block.movedim(0, 2))

    def _transfer(self, ends: Ends, layers: tuple[int, int], stage: _Stage, slots: PageIds) -> None:
        """Between the buffer and the host."""
        first, count = layers
        ids = self._ids.head(len(slots))
        payload = ends.payload.from_layer(first), payload_extent(self._shape, count)
        jobs = [(stage.payload_grid, *payload)]
        if ends.scales is not None and stage.scales_grid is not None:
            extent = Extent(layers=count, halves=2, tokens=1, row=4 * self._shape.group_heads)
            jobs.append((stage.scales_grid, ends.scales.from_layer(first), extent))
        for mine, theirs, extent in jobs:
            if self._to_host:
                self._copy(mine, ids, theirs, slots, extent)
            else:
                self._copy(theirs, slots, mine, ids, extent)


class _Buffer:
    """Device memory and the events of who fills and who empties it."""

    def __init__(self, num_bytes: int, device: torch.device) -> None:
        self.memory = torch.empty(num_bytes, dtype=torch.uint8, device=device)
        self.filled, self.emptied = new_event(), new_event()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """Pages in a buffer: `[page, layer, k|v, token, head, bytes of a head]`, then the scales."""

    payload: torch.Tensor
    scales: torch.Tensor | None
    """float32 `[page, layer, k|v, head]`."""
    payload_grid: Grid
    scales_grid: Grid | None

    @classmethod
    def over(cls, memory: torch.Tensor, shape: PageShape, pages: int, layers: int) -> _Stage:
        heads, tokens = shape.group_heads, shape.page_size
        sizes = (pages, layers, 2, tokens, heads, shape.head_size * shape.payload_itemsize)
        payload, end = _cut(memory, 0, sizes, torch.uint8)
        # Not the view's own address: a view of no pages has none.
        base = memory.data_ptr()
        grid = Grid.of(base, payload.stride())
        if shape.codec == "none":
            return cls(payload=payload, scales=None, payload_grid=grid, scales_grid=None)
        start = -(-end // 16) * 16
        scales, _ = _cut(memory, start, (pages, layers, 2, heads), torch.float32)
        strides = (*(4 * stride for stride in scales.stride()[:3]), 0)
        scales_grid = Grid.of(base + start, strides)
        return cls(payload=payload, scales=scales, payload_grid=grid, scales_grid=scales_grid)


def _cut(
    memory: torch.Tensor, at: int, sizes: tuple[int, ...], dtype: torch.dtype
) -> tuple[torch.Tensor, int]:
    """A view of some bytes, and where it ends."""
    count = dtype.itemsize
    for size in sizes:
        count *= size
    return memory[at : at + count].view(dtype).view(sizes), at + count
