"""Where the blocks of pages lie in a memory, in byte strides: what every mover copies by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """The blocks of one page: `[layer, k|v, token]` rows of `row` contiguous bytes."""

    layers: int
    halves: int
    tokens: int
    row: int

    @property
    def num_bytes(self) -> int:
        """Of one page."""
        return self.layers * self.halves * self.tokens * self.row


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Address of page 0's first row, and bytes from one page, layer, half and token to the next."""

    address: int
    page: int
    layer: int
    half: int
    token: int

    @classmethod
    def of(cls, address: int, strides: tuple[int, ...]) -> Grid:
        """From the strides of `[page, layer, k|v, token, ...]`."""
        page, layer, half, token = strides[:4]
        return cls(address=address, page=page, layer=layer, half=half, token=token)

    def from_layer(self, layer: int) -> Grid:
        """The same grid, begun at another layer."""
        return Grid(
            address=self.address + layer * self.layer,
            page=self.page,
            layer=self.layer,
            half=self.half,
            token=self.token,
        )


def fused(a: Grid, b: Grid, extent: Extent, *, across_layers: bool = True) -> Extent:
    """The same bytes in the longest rows that are contiguous in both grids."""
    layers, halves, tokens, row = extent.layers, extent.halves, extent.tokens, extent.row
    if tokens > 1 and a.token == b.token == row:
        tokens, row = 1, row * tokens
    if tokens == 1 and halves > 1 and a.half == b.half == row:
        halves, row = 1, row * halves
    if across_layers and tokens == halves == 1 and layers > 1 and a.layer == b.layer == row:
        layers, row = 1, row * layers
    return Extent(layers=layers, halves=halves, tokens=tokens, row=row)


def word_bytes(a: Grid, b: Grid, row: int) -> int:
    """The widest word, of 8, 4, 2 or 1 bytes, that every row of both grids is aligned to."""
    numbers = [row]
    for grid in (a, b):
        numbers += [grid.address, grid.page, grid.layer, grid.half, grid.token]
    return gcd(8, *numbers)


def addresses(grid: Grid, ids: Ids, extent: Extent, is_page_last: bool) -> Ids:
    """Addresses of all rows of the pages `ids`, page by page or, `is_page_last`, page fastest."""
    pages = grid.address + ids * grid.page
    steps = (extent.layers, grid.layer), (extent.halves, grid.half), (extent.tokens, grid.token)
    rows = np.zeros(1, np.int64)
    for count, stride in steps:
        rows = np.add.outer(rows, np.arange(count, dtype=np.int64) * stride).reshape(-1)
    both = (rows, pages) if is_page_last else (pages, rows)
    return np.add.outer(*both).reshape(-1)


def layer_spans(
    num_layers: int, layer_bytes: int, least_bytes: int, least_layers: int = 1
) -> Iterator[tuple[int, int]]:
    """(first, count) of layers to move in one go: so many that a go is worth its launch."""
    count = max(least_layers, min(num_layers, least_bytes // max(layer_bytes, 1)))
    for first in range(0, num_layers, count):
        yield first, min(count, num_layers - first)
