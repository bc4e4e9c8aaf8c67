"""Answers equal transformers' greedy ones, whatever the cache did: off, cold, L1, L3, by decode."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loop import Loop, check_exact
from reference import generate, load_reference
from running import Cluster

pytestmark = pytest.mark.integration
NUM_TOKENS = 64


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_tiny_models_in_fp32_answer_as_transformers_does(
    kind: str, tiny_models: dict[str, str], prompts: list[list[int]], tmp_path: Path
) -> None:
    model = tiny_models[kind]
    flags = ("--dtype", "float32", "--page-size", "16", "--max-total-tokens", "65536")
    with Cluster(tmp_path, model, *flags) as cluster:
        ways = Loop(cluster).every_way(prompts)
    reference = load_reference(model, torch.float32)
    check_exact(ways, reference)
    first = ways["off"][0]
    assert generate(reference, first.prompt, NUM_TOKENS) == first.ids


@pytest.mark.timeout(1500)
def test_the_real_model_in_fp32_answers_as_transformers_does(
    prompts: list[list[int]], tmp_path: Path
) -> None:
    flags = ("--dtype", "float32", "--page-size", "16", "--max-total-tokens", "32768")
    with Cluster(tmp_path, "smollm2", *flags) as cluster:
        ways = Loop(cluster).every_way(prompts)
    reference = load_reference("smollm2", torch.float32)
    check_exact(ways, reference)
    for answer in ways["off"][:3]:
        assert generate(reference, answer.prompt, NUM_TOKENS) == answer.ids
