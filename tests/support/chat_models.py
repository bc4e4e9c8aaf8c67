"""Small models that chat."""

from __future__ import annotations

from pathlib import Path

from reference import smollm2_gguf
from served_models import save_served


def chat_model(directory: Path) -> str:
    """A small model with the demo model's tokenizer, for its chat template."""
    from transformers import AutoTokenizer

    path = smollm2_gguf()
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return save_served("llama", directory, len(tokenizer), tokenizer)
