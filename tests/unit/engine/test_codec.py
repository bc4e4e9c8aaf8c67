"""The codec's error bounds, and what it does to a model's answers."""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
import torch
from page_detour import PageDetour, logits_change
from tiny_models import random_prompt

from kvloop.engine import codec as codecs
from kvloop.engine.codec import Quantised, code_dtype, decode, encode
from kvloop.shared_cache.hicache_names import HostLayout

CODECS: tuple[Quantised, ...] = get_args(Quantised)
STEP = {"int8": 0.5 / 127, "fp8": 16 / 448}
"""The largest error, as a share of a head's largest magnitude."""


def block(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """[page, k|v, token, head, size]; each head has a magnitude of its own."""
    noise = torch.randn(3, 2, 16, 4, 8, generator=torch.Generator().manual_seed(2))
    return (noise * torch.tensor([1e-6, 1.0, 30.0, 1e6])[:, None]).to(dtype)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_head_errs_in_proportion_to_its_own_largest_value(
    codec: Quantised, dtype: torch.dtype
) -> None:
    x = block(dtype)
    codes, scales = encode(x, codec)
    assert codes.dtype == code_dtype(codec) and codes.shape == x.shape and codes.itemsize == 1
    assert scales.dtype == torch.float32 and scales.shape == (3, 2, 4)
    error = (decode(codes, scales, torch.float32) - x.float()).abs().amax(dim=(-3, -1))
    assert (error / x.float().abs().amax(dim=(-3, -1)) <= STEP[codec] * (1 + 1e-5)).all()


@pytest.mark.parametrize("codec", CODECS)
def test_the_largest_value_of_a_head_is_exact(codec: Quantised) -> None:
    x = block()
    y = decode(*encode(x, codec), torch.float32)
    peak = x.abs().amax(dim=(-3, -1), keepdim=True)
    at_peak = x.abs() == peak
    assert torch.allclose(y[at_peak], x[at_peak], rtol=1e-6)


def test_fp8_keeps_small_values_to_a_sixteenth() -> None:
    x = block()
    y = decode(*encode(x, "fp8"), torch.float32)
    is_normal = x.abs() > x.abs().amax(dim=(-3, -1), keepdim=True) * 2**-6 / 448
    assert is_normal.float().mean() > 0.99
    assert ((y - x).abs() <= x.abs() / 16 * (1 + 1e-5))[is_normal].all()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_coded_once_is_coded_alike_again(codec: Quantised, dtype: torch.dtype) -> None:
    once = decode(*encode(block(dtype), codec), dtype)
    twice = decode(*encode(once, codec), dtype)
    step = once.float().abs().amax(dim=(-3, -1), keepdim=True) * 2**-8
    assert ((twice.float() - once.float()).abs() <= step).all()
    assert (twice == once).float().mean() > 0.95


@pytest.mark.parametrize("codec", CODECS)
def test_zeros_and_values_too_small_for_a_scale_become_zeros(codec: Quantised) -> None:
    x = torch.zeros(2, 4, 2, 8)
    x[1, 0, 1, 0] = 1e-42
    codes, scales = encode(x, codec)
    assert (scales == 1).all()
    assert not decode(codes, scales, torch.float32).any()


@pytest.mark.parametrize("codec", CODECS)
def test_values_that_are_not_finite_spoil_no_other_value(codec: Quantised) -> None:
    x = block()
    wanted = decode(*encode(x, codec), torch.float32)
    broken = x.clone()
    at = (1, 0, 5, 2)
    peak = x[1, 0, :, 2].abs().max()
    broken[(*at, 0)], broken[(*at, 1)], broken[(*at, 2)] = torch.nan, torch.inf, -torch.inf
    assert x[at][:3].abs().max() < peak  # the head's scale stays what it was
    codes, scales = encode(broken, codec)
    found = decode(codes, scales, torch.float32)
    assert scales.isfinite().all()
    assert found[at][:3].tolist() == pytest.approx([0.0, float(peak), -float(peak)])
    found[at], wanted[at] = found[at].clone(), wanted[at].clone()
    found[at][:3], wanted[at][:3] = 0, 0
    assert torch.equal(found, wanted)


def test_the_table_of_fp8_values_is_torchs() -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    assert torch.equal(codecs._widened(codes).nan_to_num(7.0), codes.float().nan_to_num(7.0))


LOGITS_CHANGE: dict[Quantised, float] = {"int8": 0.025, "fp8": 0.08}
"""Of the largest logit; these models show 0.005 to 0.011 (int8) and 0.029 to 0.044 (fp8)."""


def tenth_more(scales: npt.NDArray[np.float32]) -> None:
    scales *= 1.1


def k_and_v_exchanged(scales: npt.NDArray[np.float32]) -> None:
    scales[:] = scales[:, :, ::-1].copy()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("layout", ["page_first_direct", "layer_first"])
def test_the_codec_changes_logits_a_little_and_wrong_scales_much(
    tiny_model, kind: str, codec: Quantised, layout: HostLayout
) -> None:
    detour = PageDetour(tiny_model(kind)[0].model, random_prompt(200, seed=3))
    wanted = detour.logits()
    detour.take("none", layout)
    assert torch.equal(detour.logits(), wanted)

    detour.take(codec, layout)
    change = logits_change(detour.logits(), wanted)
    print(
        f"{kind} {codec}: logits change by {change.max_abs:.4f}, {change.relative:.4f} of the top"
    )
    assert 0 < change.relative < LOGITS_CHANGE[codec]

    for damage in (tenth_more, k_and_v_exchanged):
        detour.restore()
        detour.take(codec, layout, damage)
        assert logits_change(detour.logits(), wanted).relative > LOGITS_CHANGE[codec]
