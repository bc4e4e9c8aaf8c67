"""The engine's model on CUDA beside transformers, on tiny random models."""

from __future__ import annotations

import pytest
import torch
from engine_runs import Runs
from tiny_models import KINDS, random_prompt, reference_greedy, reference_logits, save_tiny

from kvloop.engine.loaded_model import load_engine_model
from kvloop.engine.sampling import SamplingState, sample
from kvloop.shared_cache.wire import Sampling

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
STEPS = 64


@pytest.mark.parametrize("kind", KINDS)
def test_fp32_answers_on_cuda_equal_those_of_transformers(tmp_path, kind):
    reference = save_tiny(kind, tmp_path).to("cuda")
    loaded = load_engine_model(str(tmp_path), device="cuda")
    runs = Runs(loaded.model)
    for length in (1, 16, 17, 130):
        prompt = random_prompt(length, seed=1)
        expected = reference_greedy(reference, prompt, STEPS)
        assert runs.greedy(prompt, STEPS) == expected
        assert runs.greedy(prompt, STEPS, chunk=48, scattered=True) == expected


def test_a_mixed_batch_on_cuda_answers_as_alone(tmp_path):
    reference = save_tiny("qwen3", tmp_path).to("cuda")
    runs = Runs(load_engine_model(str(tmp_path), device="cuda").model)
    prompts = [random_prompt(length, seed=2) for length in (1, 17, 70)]
    running = []
    for prompt in prompts:
        joining = runs.start(prompt, 2 * STEPS)
        work = [*[(one, 1) for one in running], (joining, len(prompt))]
        running.append(joining)
        runs.append(running, runs.step(work))
    runs.decode(running, STEPS)
    for prompt, one in zip(prompts, running, strict=True):
        assert one.output[:STEPS] == reference_greedy(reference, prompt, STEPS)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_bf16_on_cuda_differs_from_transformers_only_within_rounding(tmp_path, kind):
    reference = save_tiny(kind, tmp_path, "bfloat16").to("cuda")
    runs = Runs(load_engine_model(str(tmp_path), device="cuda").model)
    for length in (1, 17, 100):
        prompt = random_prompt(length, seed=3)
        answer = runs.greedy(prompt, 32)
        logits = reference_logits(reference, prompt + answer)[length - 1 : -1]
        best = logits.max(-1).values
        chosen = logits.gather(-1, torch.tensor(answer)[:, None])[:, 0]
        assert (best - chosen <= 0.03 * logits.abs().amax(-1)).all()


def test_random_weights_are_the_same_on_cuda_and_cpu(tmp_path):
    save_tiny("llama", tmp_path)
    on = [load_engine_model(str(tmp_path), load_format="dummy", device=d) for d in ("cpu", "cuda")]
    assert on[0].fingerprint == on[1].fingerprint
    prompt = random_prompt(40, seed=4)
    assert Runs(on[0].model).greedy(prompt, 16) == Runs(on[1].model).greedy(prompt, 16)


def test_draws_on_cuda_equal_draws_on_the_cpu():
    logits = torch.randn(6, 500, generator=torch.Generator().manual_seed(5)) * 3
    changes = [
        {},
        {"top_k": 7},
        {"top_p": 0.8},
        {"min_p": 0.1, "temperature": 0.6},
        {"repetition_penalty": 1.3, "presence_penalty": 0.4, "top_logprobs": 2},
        {"temperature": 0.0},
    ]
    for position in range(20):
        tokens = []
        for device in ("cpu", "cuda"):
            states = [
                SamplingState(Sampling(max_tokens=4, seed=i, **change), [1, 2, 3])
                for i, change in enumerate(changes)
            ]
            drawn = sample(logits.to(device), states, [position] * len(states))
            tokens.append([one.token for one in drawn])
        assert tokens[0] == tokens[1]
