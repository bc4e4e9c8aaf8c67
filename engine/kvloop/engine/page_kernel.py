# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
"""I/O backend `kernel`: a Triton kernel gathers and scatters blocks straight from pinned memory.

The device reaches registered host memory by its host address, so one kernel copies between any two
grids of pages. A few programs are enough: the bus is far slower than they are, and whoever computes
beside them keeps the other multiprocessors.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import Any, NamedTuple

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

from kvloop.engine.page_grid import Extent, Grid, fused, word_bytes

TILE_BYTES = 16384
BYTES_UNDER_WAY = 1 << 20
"""More than the bus takes on its way: what is asked for and has not arrived."""
_THREAD_BYTES = 64
_WORDS = {8: tl.int64, 4: tl.int32, 2: tl.int16, 1: tl.int8}


# Not specialized: what changes from move to move must not compile a kernel in the midst of serving.
@triton.jit(
    do_not_specialize=["source", "target", "num_pages", "layers"],
    do_not_specialize_on_alignment=["source_ids", "target_ids"],
)
def _copy_rows(
    source,
    target,
    source_ids,
    target_ids,
    num_pages,
    layers,
    source_page,
    source_layer,
    source_half,
    source_token,
    target_page,
    target_layer,
    target_half,
    target_token,
    HALVES: tl.constexpr,
    BLOCK: tl.constexpr,
    ROW: tl.constexpr,
    TILE: tl.constexpr,
    WORD: tl.constexpr,
    ALIGN: tl.constexpr,
):
    """Strides, BLOCK (of a page's layer and half), ROW and TILE count words of type WORD.

    `source` and `target` are addresses, multiples of ALIGN bytes.
    """
    # Without the hint the compiler forgets the alignment and does not join words to 16 bytes.
    source = tl.multiple_of(source.to(tl.pointer_type(WORD)), ALIGN)
    target = tl.multiple_of(target.to(tl.pointer_type(WORD)), ALIGN)
    tiles: tl.constexpr = (BLOCK + TILE - 1) // TILE
    lane = tl.arange(0, TILE)
    for item in range(tl.program_id(0), num_pages * layers * HALVES * tiles, tl.num_programs(0)):
        tile = item % tiles
        half = tl.cast((item // tiles) % HALVES, tl.int64)
        layer = tl.cast((item // (tiles * HALVES)) % layers, tl.int64)
        page = item // (tiles * HALVES * layers)
        at = tile * TILE + lane
        token, column = (at // ROW).to(tl.int64), at % ROW
        read = tl.load(source_ids + page) * source_page + layer * source_layer + half * source_half
        write = tl.load(target_ids + page) * target_page + layer * target_layer + half * target_half
        words = tl.load(source + (read + token * source_token + column), mask=at < BLOCK)
        tl.store(target + (write + token * target_token + column), words, mask=at < BLOCK)


def copy_rows(
    source: Grid,
    source_ids: torch.Tensor,
    target: Grid,
    target_ids: torch.Tensor,
    extent: Extent,
) -> None:
    """Queue on the current stream: pages `source_ids` of one grid into `target_ids` of the other.

    Ids are int64 on the device; each grid lies on the device or in pinned memory. With no ids
    this only compiles what a copy between these grids needs.
    """
    plan = _plan(source, target, extent)
    kernel: Any = _copy_rows
    kernel[(max(1, min(plan.num_programs, len(source_ids) * plan.page_tiles)),)](
        source.address,
        target.address,
        source_ids,
        target_ids,
        len(source_ids),
        extent.layers,
        *plan.strides,
        **plan.constants,
    )


class _Plan(NamedTuple):
    """What a copy between two grids asks of the kernel."""

    num_programs: int
    page_tiles: int
    """Tiles of one page."""
    strides: tuple[int, ...]
    constants: dict[str, Any]


@lru_cache(4096)
def _plan(source: Grid, target: Grid, extent: Extent) -> _Plan:
    whole = fused(source, target, extent, across_layers=False)  # one kernel for any number
    word = word_bytes(source, target, whole.row)
    block = whole.tokens * whole.row // word
    tile = _tile_words(block, TILE_BYTES // word)
    strides = [
        step // word
        for grid in (source, target)
        for step in (grid.page, grid.layer, grid.half, grid.token)
    ]
    return _Plan(
        num_programs=max(1, BYTES_UNDER_WAY // (tile * word)),
        page_tiles=whole.layers * whole.halves * triton.cdiv(block, tile),
        strides=tuple(strides),
        constants={
            "HALVES": whole.halves,
            "BLOCK": block,
            "ROW": whole.row // word,
            "TILE": tile,
            "WORD": _WORDS[word],
            "ALIGN": gcd(16, source.address, target.address),
            "num_warps": max(1, min(16, tile * word // (32 * _THREAD_BYTES))),
        },
    )


def _tile_words(block: int, most: int) -> int:
    """The largest power of two that leaves at most an eighth of a block's lanes idle."""
    tile = min(most, triton.next_power_of_2(block))
    while tile > 32 and triton.cdiv(block, tile) * tile > block + block // 8:
        tile //= 2
    return int(tile)
