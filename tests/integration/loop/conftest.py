"""Models that the loop's tests serve, and prompts for them."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hicache_loop import small_model
from reference import load_reference, questions, smollm2_gguf
from served_models import NAMES, save_served


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    path = smollm2_gguf()
    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, str]:
    """Directories of small random models with the demo model's tokenizer."""
    return {
        kind: save_served(kind, tmp_path_factory.mktemp(kind), len(tokenizer), tokenizer)
        for kind in NAMES
    }


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model with few words: what it answers is quickly judged."""
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def reference(model: str) -> Any:
    """transformers' own of it."""
    return load_reference(model, torch.float32)


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
