"""The ways that pages take between the device pool and pinned host memory.

`Straight` copies blocks from one to the other. `Staged` goes through a ring of device buffers in
which pages lie as in their objects: a codec needs that, and copy engines are faster with a few
long pieces than with many short ones. One stream fills buffers while another empties them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from kvloop.engine.copiers import Copier, backend_for, make_copier
from kvloop.engine.cuda_sync import changing_streams, mark, new_stream
from kvloop.engine.kv_pool import KVPool
from kvloop.engine.node_config import IOBackend
from kvloop.engine.page_coder import make_coder
from kvloop.engine.page_grid import Extent, Grid, fused, layer_spans
from kvloop.engine.page_ids import PageIds
from kvloop.engine.page_stage import Stage, StageBuffer, stage_bytes
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape

_BUFFER_BYTES = 64 << 20
_NUM_BUFFERS = 2
_PIECE_BYTES = 256 << 10
"""Copy engines reach the bus's rate with pieces of this size."""
_STRAIGHT_BYTES = 4 << 20
_STAGED_BYTES = 12 << 20
"""On the bus these take as long as the host takes to queue one go: fewer would leave it idle."""


class Span(NamedTuple):
    """Layers that are moved in one go."""

    first: int
    num_layers: int


class Passage(NamedTuple):
    """What was queued: when its first copy may begin, and when each span has arrived."""

    began: torch.cuda.Event
    arrivals: list[torch.cuda.Event]


class PagePath(Protocol):
    """One direction's way; calls come from one thread at a time, with the device current."""

    @property
    def first(self) -> torch.cuda.Stream:
        """The stream that must wait for what the pages wait for."""
        ...

    @property
    def last(self) -> torch.cuda.Stream:
        """The stream whose work ends when the copies queued so far have ended."""
        ...

    def spans(self, num_layers: int, layer_bytes: int) -> list[Span]:
        """Layers to move in one go where each has so many bytes on the host."""
        ...

    def copy(self, spans: Sequence[Span], pages: PageIds, slots: PageIds) -> Passage:
        """Queue the copy of device `pages` from or to host `slots`."""
        ...


def make_path(
    kv: KVPool, host: HostPool, io_backend: IOBackend, stream: torch.cuda.Stream, *, to_host: bool
) -> PagePath:
    """The fastest way that serves a pool's layout and codec."""
    ends, shape = make_ends(kv, host), host.shape
    layer = payload_extent(shape, 1)
    if not host.holds_objects:  # their pieces grow with the layers that are moved in one go
        piece_bytes = fused(ends[0].payload, ends[0].payload, layer).row
        io_backend = backend_for(io_backend, piece_bytes)
    has_blocks = fused(ends[0].device, ends[0].payload, layer).tokens == 1
    is_straight = io_backend == "kernel" or (has_blocks and not host.holds_objects)
    line = Line(
        ends=ends,
        shape=shape,
        io_backend=io_backend,
        copier=make_copier(
            io_backend, kv.device, to_host=to_host, has_long_pieces=host.holds_objects
        ),
        to_host=to_host,
    )
    return Straight(line, stream) if is_straight and shape.codec == "none" else Staged(line, stream)


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


def payload_extent(shape: PageShape, num_layers: int) -> Extent:
    """Some layers of one head group's payload."""
    row = shape.group_heads * shape.head_size * shape.payload_itemsize
    return Extent(layers=num_layers, halves=2, tokens=shape.page_size, row=row)


def scales_extent(shape: PageShape, num_layers: int) -> Extent:
    """Some layers of one head group's scales."""
    return Extent(layers=num_layers, halves=2, tokens=1, row=4 * shape.group_heads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What every way of one direction knows."""

    ends: tuple[Ends, ...]
    shape: PageShape
    io_backend: IOBackend
    copier: Copier
    to_host: bool


class Straight:
    """From one memory to the other, on one stream."""

    def __init__(self, line: Line, stream: torch.cuda.Stream) -> None:
        self.first = self.last = stream
        self._line = line

    def spans(self, num_layers: int, layer_bytes: int) -> list[Span]:
        """As `PagePath` says."""
        return [Span(*span) for span in layer_spans(num_layers, layer_bytes, _STRAIGHT_BYTES)]

    def copy(self, spans: Sequence[Span], pages: PageIds, slots: PageIds) -> Passage:
        """As `PagePath` says."""
        copier, stream, arrivals = self._line.copier, self.first, []
        with changing_streams(stream.device):
            torch.cuda.set_stream(stream)
            copier.prepare(pages, slots)
            began = mark(stream, has_time=True)
            for span in spans:
                extent = payload_extent(self._line.shape, span.num_layers)
                for ends in self._line.ends:
                    device = ends.device.from_layer(span.first)
                    payload = ends.payload.from_layer(span.first)
                    copier.copy(device, pages, payload, slots, extent, stream)
                arrivals.append(mark(stream))
        return Passage(began, arrivals)


class Staged:
    """Through device buffers: gathered and encoded there, or decoded and scattered from there."""

    def __init__(self, line: Line, stream: torch.cuda.Stream) -> None:
        device, shape = stream.device, line.shape
        self._line = line
        self._coder = make_coder(shape.codec, device)
        self._wire, self._local = stream, new_stream(device, stream.priority)
        self.first, self.last = self._wire, self._local
        if line.to_host:
            self.first, self.last = self._local, self._wire
        self._room = max(_BUFFER_BYTES, shape.payload_bytes)
        num_bytes = stage_bytes(shape, self._room)
        self._buffers = [StageBuffer(num_bytes, device) for _ in range(_NUM_BUFFERS)]
        layer_bytes = payload_extent(shape, 1).num_bytes
        self._ids = PageIds.first(self._room // layer_bytes, device)
        pieces = _PIECE_BYTES if line.io_backend == "direct" else 0
        self._least_layers = max(1, min(-(-pieces // layer_bytes), shape.num_layers))
        torch.cuda.synchronize(device)

    def spans(self, num_layers: int, layer_bytes: int) -> list[Span]:
        """As `PagePath` says."""
        found = layer_spans(num_layers, layer_bytes, _STAGED_BYTES, self._least_layers)
        return [Span(*span) for span in found]

    def copy(self, spans: Sequence[Span], pages: PageIds, slots: PageIds) -> Passage:
        """As `PagePath` says."""
        arrivals = []
        with changing_streams(self._wire.device):
            began = mark(self.first, has_time=True)
            for span in spans:
                at_once = self._room // payload_extent(self._line.shape, span.num_layers).num_bytes
                parts = list(zip(pages.parts(at_once), slots.parts(at_once), strict=True))
                for ends in self._line.ends:
                    for some, theirs in parts:
                        self._pass(ends, span, some, theirs)
                arrivals.append(mark(self.last))
        return Passage(began, arrivals)

    def _pass(self, ends: Ends, span: Span, pages: PageIds, slots: PageIds) -> None:
        buffer = self._buffers.pop(0)
        self._buffers.append(buffer)
        stage = Stage.over(buffer.memory, self._line.shape, len(pages), span.num_layers)
        heads = ends.heads[span.first : span.first + span.num_layers]
        torch.cuda.set_stream(self.first)
        self.first.wait_event(buffer.emptied)
        if self._line.to_host:
            self._coder.to_stage(heads, pages.tensor, stage)
        else:
            self._transfer(ends, span, stage, slots)
        buffer.filled.record(self.first)
        torch.cuda.set_stream(self.last)
        self.last.wait_event(buffer.filled)
        if self._line.to_host:
            self._transfer(ends, span, stage, slots)
        else:
            self._coder.from_stage(heads, pages.tensor, stage)
        buffer.emptied.record(self.last)

    def _transfer(self, ends: Ends, span: Span, stage: Stage, slots: PageIds) -> None:
        """Between the buffer and the host."""
        shape, copy = self._line.shape, self._line.copier.copy
        ids, payload = self._ids.head(len(slots)), ends.payload.from_layer(span.first)
        extent = payload_extent(shape, span.num_layers)
        copy(stage.payload_grid, ids, payload, slots, extent, self._wire)
        if ends.scales is not None:
            scales, extent = (
                ends.scales.from_layer(span.first),
                scales_extent(shape, span.num_layers),
            )
            copy(stage.scales_grid, ids, scales, slots, extent, self._wire)
