"""Each way to apply a matrix agrees with plain fp32 arithmetic."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kvloop.engine import linear
from kvloop.engine.linear import activation_dtype, make_linear

CPU = torch.device("cpu")


@pytest.fixture(params=["bf16-units", "packed", "neither"])
def bf16_units(request, monkeypatch) -> bool:
    if request.param == "packed" and not linear.can_pack():
        pytest.skip("this build of torch packs no matrices")
    monkeypatch.setattr(linear, "has_bf16_units", lambda: request.param == "bf16-units")
    monkeypatch.setattr(linear, "can_pack", lambda: request.param == "packed")
    return bool(request.param == "bf16-units")


@pytest.mark.parametrize("rows", [1, 3, 64, 200])
@pytest.mark.parametrize("has_bias", [True, False])
def test_bf16_weights_give_the_fp32_product_within_their_activations_rounding(
    bf16_units, rows, has_bias
):
    torch.manual_seed(rows)
    weight, x = torch.randn(50, 36).mul_(0.05).bfloat16(), torch.randn(rows, 36)
    bias = torch.randn(50).bfloat16() if has_bias else None
    kind = activation_dtype(torch.bfloat16, CPU)
    assert kind == (torch.bfloat16 if bf16_units else torch.float32)
    expected = F.linear(x.to(kind).float(), weight.float(), None if bias is None else bias.float())
    out = make_linear(weight, bias, CPU)(x.to(kind))
    assert out.dtype == kind
    tolerance = 2**-7 if bf16_units else 1e-5
    torch.testing.assert_close(out.float(), expected, rtol=tolerance, atol=tolerance)


def test_fp32_weights_are_applied_as_they_are(bf16_units):
    weight, x = torch.randn(8, 6), torch.randn(4, 6)
    assert activation_dtype(torch.float32, CPU) == torch.float32
    assert torch.equal(make_linear(weight, None, CPU)(x), F.linear(x, weight))
