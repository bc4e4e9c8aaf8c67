"""Models that the loop's tests serve, and prompts for them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import questions, smollm2_gguf

KINDS = ("llama", "qwen2", "qwen3")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    path = smollm2_gguf()
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, str]:
    """Directories of small random models with the demo model's tokenizer."""
    return {kind: _save(kind, tmp_path_factory.mktemp(kind), tokenizer) for kind in KINDS}


def _save(kind: str, path: Path, tokenizer: Any) -> str:
    import transformers

    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "initializer_range": 0.2,
        "tie_word_embeddings": True,
    }
    if kind == "qwen3":
        shape["head_dim"] = 32
    name = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[kind]
    torch.manual_seed(7)
    config = getattr(transformers, f"{name}Config")(**shape)
    model = getattr(transformers, f"{name}ForCausalLM")(config).float()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session")
def prompts(tokenizer: Any) -> list[list[int]]:
    """50 prompts of 1 to about 4,000 tokens: real questions, page boundaries, long documents."""
    asked = questions()
    chosen = [_chat(tokenizer, text) for text in asked[:40]]
    longest = tokenizer.encode("\n".join(asked))
    edges = [longest[:n] for n in (1, 2, 15, 16, 17, 31, 32, 33)]
    long = [longest[: min(n, len(longest))] for n in (1500, 4000)]
    return chosen + edges + long


def _chat(tokenizer: Any, text: str) -> list[int]:
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    return list(tokenizer.encode(rendered))


@pytest.fixture
def random_ids() -> random.Random:
    return random.Random(11)
