"""The engine's model beside transformers, on tiny random models in fp32."""

from __future__ import annotations

import pytest
import torch
from engine_runs import Runs
from tiny_models import KINDS, random_prompt, reference_greedy, reference_logits

from kvloop.engine.batch import Segment, make_batch
from kvloop.engine.kv_pool import KVPool
from kvloop.engine.transformer import Transformer
from kvloop.engine.weights import load_tensors

STEPS = 64
LENGTHS = [1, 15, 16, 17, 33, 130]


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_answers_equal_those_of_transformers(tiny_model, kind):
    loaded, reference = tiny_model(kind)
    runs = Runs(loaded.model)
    for length in LENGTHS:
        prompt = random_prompt(length, seed=1)
        assert runs.greedy(prompt, STEPS) == reference_greedy(reference, prompt, STEPS), length


@pytest.mark.parametrize("kind", KINDS)
def test_logits_equal_those_of_transformers_in_fp32(tiny_model, kind):
    loaded, reference = tiny_model(kind)
    prompt = random_prompt(70, seed=14)
    runs = Runs(loaded.model)
    logits = runs.step([(runs.start(prompt, 1), len(prompt))])
    expected = reference_logits(reference, prompt)[-1:]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_sequences_joining_a_running_batch_answer_as_alone(tiny_model, kind):
    loaded, reference = tiny_model(kind)
    runs = Runs(loaded.model)
    prompts = [random_prompt(length, seed=2) for length in (1, 17, 48, 70)]
    running = []
    for prompt in prompts:
        joining = runs.start(prompt, 2 * STEPS)
        while joining.num_kv < len(prompt):
            take = min(20, len(prompt) - joining.num_kv)
            logits = runs.step([*[(one, 1) for one in running], (joining, take)])
            done = [*running, joining] if joining.num_kv == len(prompt) else running
            runs.append(done, logits)
        running.append(joining)
    runs.decode(running, STEPS)
    for prompt, one in zip(prompts, running, strict=True):
        assert one.output[:STEPS] == reference_greedy(reference, prompt, STEPS)


@pytest.mark.parametrize("chunk", [1, 7, 16, 50])
def test_chunked_prefill_answers_as_whole(tiny_model, chunk):
    loaded, reference = tiny_model("llama")
    prompt = random_prompt(75, seed=3)
    expected = reference_greedy(reference, prompt, 20)
    assert Runs(loaded.model).greedy(prompt, 20, chunk=chunk) == expected


@pytest.mark.parametrize("chunk", [None, 24])
def test_scattered_pages_answer_as_one_run_of_pages(tiny_model, chunk):
    loaded, reference = tiny_model("qwen3")
    prompt = random_prompt(90, seed=4)
    expected = reference_greedy(reference, prompt, 30)
    assert Runs(loaded.model).greedy(prompt, 30, chunk=chunk, scattered=True) == expected


def test_pages_of_an_earlier_request_serve_as_its_prefix(tiny_model):
    loaded, reference = tiny_model("llama")
    runs = Runs(loaded.model)
    first = runs.start(random_prompt(40, seed=5), 24)
    runs.prefill(first)
    runs.decode([first], 23)
    shared = (len(first.tokens) - 1) // runs.page_size
    prompt = first.tokens[: shared * runs.page_size] + random_prompt(30, seed=6)
    second = runs.start(prompt, 20)
    second.pages[:shared] = first.pages[:shared]
    second.num_kv = shared * runs.page_size
    runs.prefill(second)
    runs.decode([second], 19)
    assert shared == 3
    assert second.output == reference_greedy(reference, prompt, 20)


def test_logits_come_only_for_segments_that_want_them(tiny_model):
    loaded, _ = tiny_model("llama")
    runs = Runs(loaded.model)
    one, two = (runs.start(random_prompt(20, seed=s), 4) for s in (7, 8))
    assert runs.step([(one, 10), (two, 5)]).shape == (0, loaded.config.vocab)
    assert runs.step([(one, 5), (two, 15)]).shape == (1, loaded.config.vocab)


def test_layers_are_announced_in_order_once_their_kv_is_in_the_pool(tiny_model):
    loaded, _ = tiny_model("qwen2")
    prompt = random_prompt(20, seed=9)
    batch = make_batch([(prompt, Segment([3, 4], 0, 20))], 16, "cpu")
    whole = KVPool(loaded.config, 8, 16, loaded.dtype)
    loaded.model.forward(batch, whole)
    pool = KVPool(loaded.config, 8, 16, loaded.dtype)
    announced = []

    def on_layer(layer: int) -> None:
        announced.append(layer)
        assert torch.equal(pool.tensor[: layer + 1], whole.tensor[: layer + 1])
        assert not pool.tensor[layer + 1 :].any()

    loaded.model.forward(batch, pool, on_layer)
    assert announced == [0, 1, 2]


@pytest.fixture(scope="module")
def threaded(tiny_model) -> Transformer:
    loaded, _ = tiny_model("llama")
    tensors = load_tensors(loaded.files.weights, loaded.config, loaded.dtype)
    return Transformer(loaded.config, tensors, threads=3)


def test_rows_shared_by_threads_answer_as_one_thread(tiny_model, threaded):
    _, reference = tiny_model("llama")
    runs = Runs(threaded)
    prompts = [random_prompt(length, seed=10) for length in (1, 90, 40, 130)]
    together = [runs.start(prompt, 20) for prompt in prompts]
    runs.append(together, runs.step([(one, len(one.tokens)) for one in together]))
    runs.decode(together, 19)
    for prompt, one in zip(prompts, together, strict=True):
        assert one.output == reference_greedy(reference, prompt, 20)


def test_threads_announce_a_layer_once_when_all_rows_are_written(tiny_model, threaded):
    loaded, _ = tiny_model("llama")
    batch = make_batch([(random_prompt(100, seed=11), Segment(range(7), 0, 100))], 16, "cpu")
    whole, pool = (KVPool(loaded.config, 8, 16, loaded.dtype) for _ in range(2))
    loaded.model.forward(batch, whole)
    announced = []

    def on_layer(layer: int) -> None:
        announced.append(layer)
        torch.testing.assert_close(pool.tensor[layer], whole.tensor[layer], rtol=1e-4, atol=1e-5)

    threaded.forward(batch, pool, on_layer)
    assert announced == [0, 1, 2]


def test_a_failing_announcement_fails_the_step_and_the_next_step_works(tiny_model, threaded):
    _, reference = tiny_model("llama")
    prompt = random_prompt(100, seed=12)
    batch = make_batch([(prompt, Segment(range(7), 0, 100))], 16, "cpu")
    pool = KVPool(threaded.config, 8, 16, threaded.dtype)

    def on_layer(layer: int) -> None:
        if layer == 1:
            raise OSError("the peer is gone")

    with pytest.raises(OSError, match="the peer is gone"):
        threaded.forward(batch, pool, on_layer)
    assert Runs(threaded).greedy(prompt, 10) == reference_greedy(reference, prompt, 10)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_bf16_differs_from_transformers_only_within_rounding(tiny_model, kind):
    loaded, reference = tiny_model(kind, "bfloat16")
    runs = Runs(loaded.model)
    assert loaded.dtype == torch.bfloat16
    differing = 0
    for length in (1, 17, 64, 100):
        prompt = random_prompt(length, seed=13)
        answer = runs.greedy(prompt, 32)
        logits = reference_logits(reference, prompt + answer)[length - 1 : -1]
        best = logits.max(-1).values
        chosen = logits.gather(-1, torch.tensor(answer)[:, None])[:, 0]
        differing += int((chosen < best).sum())
        # Three layers of bf16 steps of 2^-8 on the largest logits.
        assert (best - chosen <= 0.03 * logits.abs().amax(-1)).all()
    assert differing <= 8
