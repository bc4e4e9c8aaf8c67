# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators
"""The codec of pages fused with their gathering and scattering, in Triton: one pass over a page.

The same codes and scales as `kvloop.engine.codec`, which takes a dozen passes over wide copies.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

from kvloop.engine.codec import Quantised, code_dtype

_MAX_PROGRAMS = 4096
_THREAD_ELEMENTS = 32
_TINY = tl.constexpr(torch.finfo(torch.float32).tiny)
_TO_NEAREST = tl.constexpr(1.5 * 2**23)
"""Adding and subtracting it leaves a float32 below 2^22 rounded to the nearest even integer."""


@triton.jit(do_not_specialize=["num_pages", "layers"], do_not_specialize_on_alignment=["pages"])
def _encode(
    pool,
    pages,
    codes,
    scales,
    num_pages,
    layers,
    layer_stride,
    half_stride,
    page_stride,
    token_stride,
    HEADS: tl.constexpr,
    TOKENS: tl.constexpr,
    SIZE: tl.constexpr,
    TOKEN_SLOTS: tl.constexpr,
    SIZE_SLOTS: tl.constexpr,
    LARGEST: tl.constexpr,
    IS_INTEGER: tl.constexpr,
):
    """`pool` [layer, k|v, page, token, head, size] to `codes` [page, layer, k|v, token, head,
    size] and `scales` [page, layer, k|v, head]; strides of the pool count elements."""
    token = tl.arange(0, TOKEN_SLOTS)[:, None]
    column = tl.arange(0, SIZE_SLOTS)[None, :]
    inside = (token < TOKENS) & (column < SIZE)
    for item in range(tl.program_id(0), num_pages * layers * 2 * HEADS, tl.num_programs(0)):
        head = item % HEADS
        half = (item // HEADS) % 2
        layer = (item // (HEADS * 2)) % layers
        page = tl.load(pages + item // (HEADS * 2 * layers))
        base = page * page_stride
        base += tl.cast(layer, tl.int64) * layer_stride + tl.cast(half, tl.int64) * half_stride
        at = pool + (base + head * SIZE) + (token * token_stride + column)
        block = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        block = tl.where(block == block, block, 0.0)
        magnitude = tl.abs(block)
        peak = tl.max(tl.max(tl.where(magnitude < float("inf"), magnitude, 0.0), 1), 0)
        scale = tl.div_rn(peak, LARGEST)
        scale = tl.where(scale < _TINY, 1.0, scale)
        scaled = tl.div_rn(block, tl.broadcast_to(scale, block.shape))
        scaled = tl.minimum(tl.maximum(scaled, -LARGEST), LARGEST)
        target = (tl.cast(item // HEADS, tl.int64) * TOKENS * HEADS + head) * SIZE
        target = target + (token * (HEADS * SIZE) + column)
        if IS_INTEGER:
            rounded = (scaled + _TO_NEAREST) - _TO_NEAREST
            tl.store(codes + target, rounded.to(tl.int8), mask=inside)
        else:
            tl.store(codes + target, scaled.to(tl.float8e4nv), mask=inside)
        tl.store(scales + item, scale)


@triton.jit(do_not_specialize=["num_pages", "layers"], do_not_specialize_on_alignment=["pages"])
def _decode(
    pool,
    pages,
    codes,
    scales,
    num_pages,
    layers,
    layer_stride,
    half_stride,
    page_stride,
    token_stride,
    HEADS: tl.constexpr,
    TOKENS: tl.constexpr,
    SIZE: tl.constexpr,
    TOKEN_SLOTS: tl.constexpr,
    SIZE_SLOTS: tl.constexpr,
):
    """The inverse of `_encode`."""
    token = tl.arange(0, TOKEN_SLOTS)[:, None]
    column = tl.arange(0, SIZE_SLOTS)[None, :]
    inside = (token < TOKENS) & (column < SIZE)
    for item in range(tl.program_id(0), num_pages * layers * 2 * HEADS, tl.num_programs(0)):
        head = item % HEADS
        half = (item // HEADS) % 2
        layer = (item // (HEADS * 2)) % layers
        page = tl.load(pages + item // (HEADS * 2 * layers))
        base = page * page_stride
        base += tl.cast(layer, tl.int64) * layer_stride + tl.cast(half, tl.int64) * half_stride
        source = (tl.cast(item // HEADS, tl.int64) * TOKENS * HEADS + head) * SIZE
        source = source + (token * (HEADS * SIZE) + column)
        block = tl.load(codes + source, mask=inside, other=0.0).to(tl.float32)
        block = block * tl.load(scales + item)
        at = pool + (base + head * SIZE) + (token * token_stride + column)
        tl.store(at, block.to(pool.dtype.element_ty), mask=inside)


def can_fuse(codec: Quantised, device: torch.device) -> bool:
    """Whether the device converts to the codec's type in hardware: fp8 from sm_89 on."""
    return codec == "int8" or torch.cuda.get_device_capability(device) >= (8, 9)


def encode_pages(
    heads: torch.Tensor,
    pages: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    codec: Quantised,
) -> None:
    """Encode `pages` of `heads` [layer, k|v, page, token, head, size] into `codes`, bytes of
    [page, layer, k|v, token, head, size], and `scales` [page, layer, k|v, head]."""
    largest = torch.iinfo(torch.int8).max if codec == "int8" else torch.finfo(code_dtype(codec)).max
    _launch(
        _encode, heads, pages, codes.view(code_dtype(codec)), scales,
        LARGEST=float(largest), IS_INTEGER=codec == "int8",
    )  # fmt: skip


def decode_pages(
    heads: torch.Tensor,
    pages: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    codec: Quantised,
) -> None:
    """The inverse of `encode_pages`."""
    _launch(_decode, heads, pages, codes.view(code_dtype(codec)), scales)


def _launch(
    kernel: Any,
    heads: torch.Tensor,
    pages: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    **constants: object,
) -> None:
    layers, _, _, tokens, count, size = heads.shape
    layer_stride, half_stride, page_stride, token_stride, head_stride, _ = heads.stride()
    assert head_stride == size and heads.stride(5) == 1, heads.stride()
    slots = triton.next_power_of_2(tokens), triton.next_power_of_2(size)
    warps = max(1, min(16, slots[0] * slots[1] // (32 * _THREAD_ELEMENTS)))
    kernel[(max(1, min(_MAX_PROGRAMS, scales.numel())),)](
        heads,
        pages,
        codes,
        scales,
        len(pages),
        layers,
        layer_stride,
        half_stride,
        page_stride,
        token_stride,
        HEADS=count,
        TOKENS=tokens,
        SIZE=size,
        TOKEN_SLOTS=slots[0],
        SIZE_SLOTS=slots[1],
        num_warps=warps,
        **constants,
    )
