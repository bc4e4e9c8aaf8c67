"""Small random, servable Llama, Qwen2 and Qwen3 directories, written by transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

NAMES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "initializer_range": 0.2,
}
"""Fields of a config, but for words and whatever a kind has of its own."""


def save_served(kind: str, path: Path, vocab_size: int, tokenizer: Any = None) -> str:
    """Write config, random fp32 weights and a tokenizer (a made one by default); the directory."""
    import transformers

    shape = {**SMALL, "vocab_size": vocab_size, "tie_word_embeddings": True}
    if kind == "qwen3":
        shape["head_dim"] = 32
    torch.manual_seed(7)
    config = getattr(transformers, f"{NAMES[kind]}Config")(**shape)
    model = getattr(transformers, f"{NAMES[kind]}ForCausalLM")(config).float()
    model.save_pretrained(path)
    (tokenizer or letters(vocab_size)).save_pretrained(path)
    return str(path)


def letters(vocab_size: int) -> Any:
    """One token a code point: enough for tests that speak token ids."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocab = {chr(0x100 + i): i for i in range(vocab_size)}
    core = Tokenizer(models.WordLevel(vocab, unk_token=chr(0x100)))
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token=chr(0x100))
