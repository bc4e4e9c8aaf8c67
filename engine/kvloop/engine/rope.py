"""Rotary position embedding, its angles computed for the positions of a step only."""

from __future__ import annotations

import math

import torch

from kvloop.engine.model_config import ModelConfig, Rope


class Rotary:
    """Rotates pairs (i, i + size/2) of each head by position * frequency[i]."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._frequencies = inverse_frequencies(config.rope, config.head_size).to(device)
        self._half = config.head_size // 2

    def angles(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """fp32 cos and signed sin, `[tokens, 1, head size]`, of int64 positions."""
        angle = positions.float()[:, None] * self._frequencies
        cos, sin = angle.cos(), angle.sin()
        # Signed once here, so that `rotate` needs no negation for every layer.
        return torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None]

    def rotate(
        self, heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor
    ) -> None:
        """Write `[tokens, heads, head size]`, rotated in fp32, to `out`, which may be `heads`."""
        turned = (heads * cos).addcmul_(heads.roll(self._half, -1), sin)
        out.copy_(turned)


def inverse_frequencies(rope: Rope, head_size: int) -> torch.Tensor:
    """fp32 `[head_size / 2]`, scaled as the rope's kind says."""
    exponents = torch.arange(0, head_size, 2, dtype=torch.int64).float() / head_size
    plain = 1.0 / (rope.theta**exponents)
    if rope.kind == "linear":
        return plain / rope.factor
    if rope.kind == "llama3":
        return _llama3(plain, rope)
    return plain


def _llama3(plain: torch.Tensor, rope: Rope) -> torch.Tensor:
    """Long waves slowed by `factor`, short ones kept, those between blended."""
    low_wave = rope.original_max_position / rope.low_freq_factor
    high_wave = rope.original_max_position / rope.high_freq_factor
    wave = 2 * math.pi / plain
    scaled = torch.where(wave > low_wave, plain / rope.factor, plain)
    smooth = (rope.original_max_position / wave - rope.low_freq_factor) / (
        rope.high_freq_factor - rope.low_freq_factor
    )
    blended = (1 - smooth) * scaled / rope.factor + smooth * scaled
    between = ~(wave < high_wave) & ~(wave > low_wave)
    return torch.where(between, blended, scaled)
