"""Answers equal transformers' greedy ones, whatever the cache did: off, cold, L1, L3, by decode."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from loop import Loop, check_exact
from reference import generate, judge, load_reference
from running import EXACT, Cluster

pytestmark = pytest.mark.integration
NUM_TOKENS = 64


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("llama", marks=pytest.mark.slow),
        pytest.param("qwen2", marks=pytest.mark.slow),
        "qwen3",
    ],
)
def test_tiny_models_in_fp32_answer_as_transformers_does(
    kind: str, tiny_models: dict[str, str], prompts: list[list[int]], tmp_path: Path
) -> None:
    model = tiny_models[kind]
    flags = (*EXACT, "--dtype", "float32", "--page-size", "16", "--max-total-tokens", "65536")
    chosen = prompts if os.environ.get("KVLOOP_TESTS") == "full" else prompts[::3] + prompts[-2:]
    with Cluster(tmp_path, model, *flags) as cluster:
        ways = Loop(cluster).every_way(chosen)
    reference = load_reference(model, torch.float32)
    check_exact(ways, reference)
    first = ways["off"][0]
    assert generate(reference, first.prompt, NUM_TOKENS) == first.ids


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "chosen",
    [slice(0, -1, 48), pytest.param(slice(None), marks=pytest.mark.slow)],
    ids=["two", "all"],
)
def test_the_real_model_in_fp32_answers_as_transformers_does(
    chosen: slice, prompts: list[list[int]], tmp_path: Path
) -> None:
    flags = (*EXACT, "--dtype", "float32", "--page-size", "16", "--max-total-tokens", "32768")
    with Cluster(tmp_path, "smollm2", *flags) as cluster:
        ways = Loop(cluster).every_way(prompts[chosen][::-1])
    reference = load_reference("smollm2", torch.float32)
    check_exact(ways, reference)
    for answer in ways["off"][:3]:
        assert generate(reference, answer.prompt, NUM_TOKENS) == answer.ids


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_real_model_in_bf16_differs_only_where_two_logits_are_within_rounding(
    prompts: list[list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--dtype", "bfloat16", "--page-size", "16", "--max-total-tokens", "32768")
    with Cluster(tmp_path, "smollm2", *flags) as cluster:
        ways = Loop(cluster).every_way(prompts)
    reference = load_reference("smollm2", torch.bfloat16)
    gaps, num_tokens = [], 0
    for answer in [*ways["off"], *ways["by decode"][:10]]:
        verdict = judge(reference, answer.prompt, answer.ids)
        num_tokens += len(answer.ids)
        gaps += verdict.gaps
    with capsys.disabled():
        print(f"\nbf16: {len(gaps)} of {num_tokens} tokens differ; widest gap {max(gaps):.4f}")
    assert len(gaps) < num_tokens / 20
    # Logits of the reference are bf16: two neighbours are 2**-8 to 2**-7 of their size apart.
    assert max(gaps) <= 4 * 2**-7
