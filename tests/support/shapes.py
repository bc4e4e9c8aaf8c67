"""Model directories of larger shapes: a config and a tokenizer, for random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from served_models import letters

VOCAB = 32_000
SHAPES: dict[str, dict[str, Any]] = {
    "135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
"""Of models of about so many parameters."""


def save_shape(name: str, path: Path) -> str:
    """Write config.json and a tokenizer that speaks token ids; the directory."""
    path.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "eos_token_id": 3,
        **SHAPES[name],
    }
    (path / "config.json").write_text(json.dumps(config))
    letters(VOCAB).save_pretrained(path)
    return str(path)
