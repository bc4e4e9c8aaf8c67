"""What the codec does to the built-in model's answers, on real prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from page_detour import PageDetour, logits_change

from kvloop.engine.codec import Quantised
from kvloop.engine.loaded_model import LoadedModel, load_engine_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
QUESTIONS = Path(__file__).parents[2] / "data" / "mt_bench_excerpt.jsonl"
PROMPTS, TOKENS = 6, 300
DIVERGENCE: dict[Quantised, float] = {"int8": 0.005, "fp8": 0.02}
"""Kullback-Leibler, mean of the prompts; about ten times what was measured."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedModel]:
    threads = torch.get_num_threads()
    cache = tmp_path_factory.mktemp("models")
    yield load_engine_model("smollm2", "bfloat16", device="cpu", cache_dir=cache)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def prompts(loaded: LoadedModel) -> list[list[int]]:
    """Questions, one after the other, cut to equal lengths."""
    from tokenizers import Tokenizer

    tokenizer: Any = Tokenizer.from_file(str(loaded.files.directory / "tokenizer.json"))
    turns = [turn for line in QUESTIONS.open() for turn in json.loads(line)["turns"]]
    ids = tokenizer.encode("\n\n".join(turns)).ids
    return [ids[i * TOKENS : (i + 1) * TOKENS] for i in range(PROMPTS)]


@pytest.mark.parametrize("codec", DIVERGENCE)
def test_the_codec_changes_the_next_tokens_distribution_a_little(
    loaded: LoadedModel, prompts: list[list[int]], codec: Quantised
) -> None:
    changes, agreed = [], 0
    for prompt in prompts:
        detour = PageDetour(loaded.model, prompt)
        wanted = detour.logits()
        detour.take(codec)
        found = detour.logits()
        changes.append(logits_change(found, wanted))
        agreed += int(found.argmax() == wanted.argmax())
    divergence = sum(change.divergence for change in changes) / PROMPTS
    print(
        f"{codec}: logits change by {max(c.max_abs for c in changes):.3f} at most "
        f"({max(c.relative for c in changes):.4f} of the largest), "
        f"divergence {divergence:.5f} nats, same first token {agreed} of {PROMPTS}"
    )
    assert 0 < divergence < DIVERGENCE[codec]
