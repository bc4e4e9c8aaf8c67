"""Tensors by name: from safetensors, or drawn at random."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from kvloop.engine.model_config import ModelConfig
from kvloop.engine.safetensors_file import read_safetensors
from kvloop.shared_cache.errors import ConfigError

Tensors = dict[str, torch.Tensor]
_INITIAL_STD = 0.02


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor the model needs, by its Hugging Face name."""
    hidden, size = config.hidden, config.head_size
    q, kv = config.heads * size, config.kv_heads * size
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab, hidden)}
    linears = [
        ("self_attn.q_proj", q, hidden, config.qkv_bias),
        ("self_attn.k_proj", kv, hidden, config.qkv_bias),
        ("self_attn.v_proj", kv, hidden, config.qkv_bias),
        ("self_attn.o_proj", hidden, q, config.o_bias),
        ("mlp.gate_proj", config.intermediate, hidden, config.mlp_bias),
        ("mlp.up_proj", config.intermediate, hidden, config.mlp_bias),
        ("mlp.down_proj", hidden, config.intermediate, config.mlp_bias),
    ]
    for layer in range(config.layers):
        at = f"model.layers.{layer}"
        shapes[f"{at}.input_layernorm.weight"] = (hidden,)
        shapes[f"{at}.post_attention_layernorm.weight"] = (hidden,)
        if config.qk_norm:
            shapes[f"{at}.self_attn.q_norm.weight"] = (size,)
            shapes[f"{at}.self_attn.k_norm.weight"] = (size,)
        for name, rows, columns, has_bias in linears:
            shapes[f"{at}.{name}.weight"] = (rows, columns)
            if has_bias:
                shapes[f"{at}.{name}.bias"] = (rows,)
    shapes["model.norm.weight"] = (hidden,)
    if not config.tie_embeddings:
        shapes["lm_head.weight"] = (config.vocab, hidden)
    return shapes


def load_tensors(files: Sequence[Path], config: ModelConfig, dtype: torch.dtype) -> Tensors:
    """The model's tensors in `dtype`, mapped where the file has it; ConfigError if one lacks."""
    if not files:
        raise ConfigError("the model directory has no *.safetensors; or use --load-format dummy")
    found: Tensors = {}
    for file in files:
        found.update(read_safetensors(file))
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        tensor = found.get(name)
        if tensor is None:
            raise ConfigError(f"tensor {name} is in none of {', '.join(f.name for f in files)}")
        if tuple(tensor.shape) != shape:
            raise ConfigError(
                f"tensor {name} has shape {tuple(tensor.shape)}, config.json asks for {shape}"
            )
        tensors[name] = tensor.to(dtype)
    return tensors


def dummy_tensors(config: ModelConfig, dtype: torch.dtype, seed: int) -> Tensors:
    """Random weights, each tensor keyed by seed and name: the same on every node and device."""
    return {
        name: _dummy(name, shape, seed).to(dtype) for name, shape in tensor_shapes(config).items()
    }


def _dummy(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    key = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "little", signed=True))
    return torch.randn(shape, generator=generator).mul_(_INITIAL_STD)


def stacked(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Parts along the first dimension: a view where they already lie side by side, else a copy."""
    first = parts[0]
    address = first.data_ptr()
    for part in parts:
        if part.data_ptr() != address or part.dtype != first.dtype or not part.is_contiguous():
            return torch.cat(list(parts))
        address += part.nbytes
    if any(p.untyped_storage().data_ptr() != first.untyped_storage().data_ptr() for p in parts):
        return torch.cat(list(parts))
    rows = sum(part.shape[0] for part in parts)
    return first.as_strided((rows, *first.shape[1:]), first.stride())
