"""Tiny random models as transformers writes them, and transformers' own greedy answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

VOCAB = 160
_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 4096,
    "eos_token_id": 3,
    "bos_token_id": 1,
    "rms_norm_eps": 1e-5,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-tied": ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 6}),
    "llama-biased": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-rope3": ("llama", {"rope_parameters": _LLAMA3_ROPE}),
    "llama-linear": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
    ),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 16, "num_key_value_heads": 3}),
}


def save_tiny(kind: str, path: Path, dtype: str = "float32", shard: str = "5GB") -> Any:
    """Write a random model of a kind to `path`; returns transformers' own model of it."""
    from transformers import AutoConfig, AutoModelForCausalLM

    family, changes = KINDS[kind]
    config = AutoConfig.for_model(family, **(_COMMON | changes))
    torch.manual_seed(len(kind) * 7 + ord(kind[-1]))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.15)
    model.to(getattr(torch, dtype)).save_pretrained(path, max_shard_size=shard)
    return AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype)).eval()


def random_prompt(length: int, seed: int, vocab: int = VOCAB) -> list[int]:
    """Token ids that depend on length and seed only."""
    generator = torch.Generator().manual_seed(1000 * seed + length)
    return torch.randint(4, vocab, (length,), generator=generator).tolist()


@torch.inference_mode()
def reference_greedy(model: Any, prompt: Sequence[int], steps: int) -> list[int]:
    """transformers' greedy continuation, never stopping at an end token."""
    device = next(model.parameters()).device
    ids = torch.tensor([list(prompt)], device=device)
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=steps,
        min_new_tokens=None,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        repetition_penalty=1.0,
    )
    return [int(token) for token in out[0, len(prompt) :]]


@torch.inference_mode()
def reference_logits(model: Any, ids: Sequence[int]) -> torch.Tensor:
    """fp32 `[len(ids), vocab]`: after each token."""
    device = next(model.parameters()).device
    logits: torch.Tensor = model(torch.tensor([list(ids)], device=device)).logits[0]
    return logits.float().cpu()
