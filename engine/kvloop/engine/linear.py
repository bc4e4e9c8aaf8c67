"""How a matrix of weights is applied: one strategy for each kind of machine.

CPUs without bf16 units run bf16 matmuls at 15 GFLOPS where fp32 has 100. There the weights are
packed as fp16 (which holds bf16 values exactly, but for those below 2^-17) and multiplied by fp32
activations: half of fp32's bytes to stream for a few rows, and no slower for many.
Measured on a 2-core Zen 3 (AVX2), one thread, weight [3072, 576], ms for rows 1/4/16/64/256:
packed 0.23/0.33/0.84/2.8/10.6, fp32 0.67/1.13/1.75/4.2/13.8, bf16 0.49/1.72/-/-/-.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F

Linear = Callable[[torch.Tensor], torch.Tensor]
"""`[rows, in]` to `[rows, out]`, both in `activation_dtype`."""


@cache
def has_bf16_units() -> bool:
    """Whether this CPU multiplies bf16 matrices in hardware."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def can_pack() -> bool:
    """Whether this build of torch has the packed fp16 matrices (x86 with AVX2)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.fbgemm_pack_gemm_matrix_fp16(torch.zeros(2, 2))
        except (RuntimeError, AttributeError):
            return False
    return True


def computes_wide(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether activations are fp32 though weights are bf16: this CPU has no bf16 units."""
    return device.type == "cpu" and dtype == torch.bfloat16 and not has_bf16_units()


def activation_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """What activations are computed in for weights of `dtype`."""
    return torch.float32 if computes_wide(dtype, device) else dtype


def make_linear(weight: torch.Tensor, bias: torch.Tensor | None, device: torch.device) -> Linear:
    """The fastest way to apply `weight` `[out, in]` (on the CPU) on a device."""
    is_wide = computes_wide(weight.dtype, device)
    if is_wide and can_pack():
        return _packed(weight, bias)
    kind = torch.float32 if is_wide else weight.dtype
    moved = None if bias is None else bias.to(device, kind)
    return partial(F.linear, weight=weight.to(device, kind), bias=moved)


def _packed(weight: torch.Tensor, bias: torch.Tensor | None) -> Linear:
    multiply = torch.fbgemm_linear_fp16_weight_fp32_activation
    offset = torch.zeros(weight.shape[0]) if bias is None else bias.float()
    with warnings.catch_warnings():
        # Deprecated, and said once at the first call; what replaces it takes 30 us more a call.
        warnings.simplefilter("ignore")
        matrix = torch.fbgemm_pack_gemm_matrix_fp16(weight.float())
        multiply(torch.zeros(1, weight.shape[1]), matrix, offset)

    def apply(rows: torch.Tensor) -> torch.Tensor:
        return multiply(rows, matrix, offset)

    return apply
