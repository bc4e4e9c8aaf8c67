# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
"""I/O backend `kernel`: a Triton kernel gathers and scatters blocks straight from pinned memory.

The device reaches registered host memory by its host address, so one kernel copies between any two
grids of pages. A few programs are enough: the bus is far slower than they are, and whoever computes
beside them keeps the other multiprocessors.
"""

from __future__ import annotations

from math import gcd
from typing import Any

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

from kvloop.engine.page_grid import Extent, Grid, fused, word_bytes

NUM_PROGRAMS = 32
TILE_BYTES = 32768
NUM_WARPS = 8
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
    extent = fused(source, target, extent, across_layers=False)  # one kernel for any number
    word = word_bytes(source, target, extent.row)
    block = extent.tokens * extent.row // word
    tile = min(TILE_BYTES // word, triton.next_power_of_2(block))
    blocks = len(source_ids) * extent.layers * extent.halves * triton.cdiv(block, tile)
    kernel: Any = _copy_rows
    kernel[(max(1, min(NUM_PROGRAMS, blocks)),)](
        source.address,
        target.address,
        source_ids,
        target_ids,
        len(source_ids),
        extent.layers,
        *(stride // word for stride in (source.page, source.layer, source.half, source.token)),
        *(stride // word for stride in (target.page, target.layer, target.half, target.token)),
        HALVES=extent.halves,
        BLOCK=block,
        ROW=extent.row // word,
        TILE=tile,
        WORD=_WORDS[word],
        ALIGN=gcd(16, source.address, target.address),
        num_warps=NUM_WARPS,
    )
