"""The codec of pages outside of the device: one byte an element, one scale a head.

A scale covers all tokens of a page in one layer, k or v, and head: its largest magnitude lands on
the largest code. So an int8 code is off by half a scale at most, an fp8 one by a sixteenth of its
value.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

Quantised = Literal["int8", "fp8"]

_DTYPES: dict[Quantised, torch.dtype] = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
_LARGEST: dict[Quantised, float] = {"int8": 127.0, "fp8": 448.0}
_FP8_VALUES = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
_TINY = torch.finfo(torch.float32).tiny


class Encoded(NamedTuple):
    """A block's codes and scales; `codes * scales` is about the block."""

    codes: torch.Tensor
    """int8 or float8_e4m3fn, of the block's shape [..., token, head, size]."""
    scales: torch.Tensor
    """float32 [..., head]."""


def code_dtype(codec: Quantised) -> torch.dtype:
    """The dtype of a codec's payload; one byte."""
    return _DTYPES[codec]


def encode(block: torch.Tensor, codec: Quantised) -> Encoded:
    """Quantise a block [..., token, head, size] of any float dtype, on its own device.

    NaN becomes 0 and an infinity the largest magnitude that is finite in its head; scales are
    always finite and above 0.
    """
    wide = block.float()
    largest = _LARGEST[codec]
    peak = wide.abs().amax(dim=(-3, -1))
    if block.is_cuda or not bool(torch.isfinite(peak).all()):
        # On a GPU always: to ask whether it is needed would make the host wait.
        peak = wide.abs().nan_to_num(0.0, 0.0).amax(dim=(-3, -1))
        wide = wide.nan_to_num(0.0, torch.inf, -torch.inf)
    scales = peak / largest
    scales = torch.where(scales < _TINY, 1.0, scales)
    codes = (wide / scales[..., None, :, None]).clamp_(-largest, largest)
    if codec == "int8":
        codes.round_()
    return Encoded(codes.to(_DTYPES[codec]), scales)


def decode(codes: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The block of `encode`, as `dtype`."""
    return _widened(codes).mul_(scales[..., None, :, None]).to(dtype)


def _widened(codes: torch.Tensor) -> torch.Tensor:
    """A new float32 tensor; for fp8 on a CPU a table is three times as fast as torch itself."""
    if codes.dtype != torch.float8_e4m3fn or codes.is_cuda:
        return codes.float()
    at = codes.view(torch.uint8).reshape(-1).int()
    return _FP8_VALUES.index_select(0, at).view(codes.shape)
