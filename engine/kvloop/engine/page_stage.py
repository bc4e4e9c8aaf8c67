"""A device buffer in which pages lie as in their objects, on their way to or from the host."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kvloop.engine.cuda_sync import new_event
from kvloop.engine.page_grid import Grid
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.page_object import PageShape

_ALIGNMENT = 16


class StageBuffer:
    """Device memory, and the events of who fills and who empties it."""

    def __init__(self, num_bytes: int, device: torch.device) -> None:
        try:
            self.memory = torch.empty(num_bytes, dtype=torch.uint8, device=device)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"--max-total-tokens leaves no {num_bytes / 1e6:.0f} MB on the device for pages on "
                "their way to and from the host; give fewer tokens"
            ) from error
        self.filled, self.emptied = new_event(), new_event()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Some layers of some pages of one head group."""

    payload: torch.Tensor
    """uint8 `[page, layer, k|v, token, head, bytes of a head]`."""
    scales: torch.Tensor
    """float32 `[page, layer, k|v, head]`; without heads where the codec is none."""
    payload_grid: Grid
    scales_grid: Grid

    @classmethod
    def over(cls, memory: torch.Tensor, shape: PageShape, pages: int, layers: int) -> Stage:
        """Views of a buffer of `stage_bytes` at least."""
        heads = shape.group_heads
        sizes = (pages, layers, 2, shape.page_size, heads, shape.head_size * shape.payload_itemsize)
        payload, end = _cut(memory, 0, sizes, torch.uint8)
        start = -(-end // _ALIGNMENT) * _ALIGNMENT
        heads = 0 if shape.codec == "none" else heads
        scales, _ = _cut(memory, start, (pages, layers, 2, heads), torch.float32)
        # Not the views' own addresses: a view of no pages has none.
        return cls(
            payload=payload,
            scales=scales,
            payload_grid=Grid.of(memory.data_ptr(), payload.stride()),
            scales_grid=Grid.of(
                memory.data_ptr() + start, (*(4 * step for step in scales.stride()[:3]), 0)
            ),
        )


def stage_bytes(shape: PageShape, payload_bytes: int) -> int:
    """Memory that so many bytes of payload take with their scales."""
    # A scale is a float for each head of a page, whose payload has a byte for each token of it.
    return payload_bytes + 4 * (payload_bytes // shape.page_size) + _ALIGNMENT


def _cut(
    memory: torch.Tensor, at: int, sizes: tuple[int, ...], dtype: torch.dtype
) -> tuple[torch.Tensor, int]:
    """A view of some bytes, and where it ends."""
    count = dtype.itemsize
    for size in sizes:
        count *= size
    return memory[at : at + count].view(dtype).view(sizes), at + count
