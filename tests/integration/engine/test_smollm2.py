"""The built-in model beside transformers, which loads the GGUF file itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_runs import Runs
from tiny_models import reference_greedy, reference_logits

from kvloop.engine.loaded_model import LoadedModel, load_engine_model
from kvloop.engine.model_config import ModelConfig
from kvloop.engine.model_files import _built_in_file, resolve_model

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]
STEPS = 64
PAGE = 16
SUBJECTS = ["a lighthouse", "binary search", "Gödel", "日本語"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Spinning threads cost minutes where other processes use the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def gguf() -> Path:
    return _built_in_file()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def reference_tokenizer(gguf: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)


def load_reference(gguf: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), gguf_file=gguf.name, dtype=dtype
    ).eval()


@pytest.fixture(scope="module")
def reference(gguf: Path) -> Any:
    return load_reference(gguf, torch.float32)


@pytest.fixture(scope="module")
def loaded(cache: Path) -> LoadedModel:
    return load_engine_model("smollm2", "float32", device="cpu", cache_dir=cache)


@pytest.fixture(scope="module")
def prompts(reference_tokenizer: Any) -> list[list[int]]:
    """1 to about 1,200 tokens, some ending on a page's edge."""
    chats = [
        reference_tokenizer.apply_chat_template(
            [{"role": "user", "content": f"Tell me about {subject}."}],
            add_generation_prompt=True,
            return_dict=False,
        )
        for subject in SUBJECTS
    ]
    text = " ".join(f"{i}. The {subject} of {i * 37}." for i in range(60) for subject in SUBJECTS)
    long = reference_tokenizer(text)["input_ids"]
    assert len(long) >= 1201
    return [*chats, *(long[:n] for n in (1, 16, 17, 129, 512, 1201))]


@pytest.fixture(scope="module")
def answers(reference: Any, prompts: list[list[int]]) -> list[list[int]]:
    return [reference_greedy(reference, prompt, STEPS) for prompt in prompts]


def test_weights_equal_those_that_transformers_dequantizes(reference, loaded):
    from kvloop.engine.weights import load_tensors

    theirs = reference.state_dict()
    mine = load_tensors(loaded.files.weights, loaded.config, torch.float32)
    assert set(theirs) - set(mine) <= {"lm_head.weight"}
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name].float(), rtol=0, atol=1e-6)


def test_config_equals_what_transformers_reads(reference, loaded):
    raw = json.loads(reference.config.to_json_string(use_diff=False))
    del raw["quantization_config"]  # how transformers remembers that the file was GGUF
    theirs = ModelConfig.from_dict(raw)
    assert theirs.identity() == loaded.config.identity()
    assert theirs.max_position_embeddings == loaded.config.max_position_embeddings
    assert loaded.config.eos_token_ids == (2,)


def test_tokenizer_and_chat_template_equal_those_that_transformers_reads(
    reference_tokenizer, loaded
):
    from transformers import AutoTokenizer

    mine = AutoTokenizer.from_pretrained(loaded.files.directory)
    chat = [{"role": "user", "content": "Grüße, 世界! 1 + 1 = ?\n\n\tdef f(x): …  <|im_end|>"}]
    for tokenizer in (mine, reference_tokenizer):
        assert tokenizer.eos_token_id == 2
    for text in (*SUBJECTS, "  two  spaces\n\n", "naïve 🙂 <|im_start|>user", "12345 6,789.01"):
        assert mine(text)["input_ids"] == reference_tokenizer(text)["input_ids"]
    render = dict(add_generation_prompt=True, return_dict=False)
    ids = mine.apply_chat_template(chat, **render)
    assert ids == reference_tokenizer.apply_chat_template(chat, **render)
    assert mine.decode(ids) == reference_tokenizer.decode(ids)


@pytest.mark.slow
def test_fp32_answers_equal_those_of_transformers_alone(loaded, prompts, answers):
    runs = Runs(loaded.model, num_pages=200, page_size=PAGE)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert runs.greedy(prompt, STEPS) == answer, len(prompt)


@pytest.mark.slow
def test_fp32_answers_equal_those_of_transformers_batched_in_chunks(loaded, prompts, answers):
    runs = Runs(loaded.model, num_pages=400, page_size=PAGE)
    sequences = [
        runs.start(prompt, STEPS, scattered=bool(i % 2)) for i, prompt in enumerate(prompts)
    ]
    while any(len(one.output) < STEPS for one in sequences):
        work, budget = [], 160
        for one in sequences:
            take = min(len(one.tokens) - one.num_kv, budget)
            if take and len(one.output) < STEPS:
                work.append((one, take))
                budget -= take
        logits = runs.step(work)
        runs.append([one for one, _ in work if one.num_kv == len(one.tokens)], logits)
    for prompt, one, answer in zip(prompts, sequences, answers, strict=True):
        assert one.output == answer, len(prompt)


@pytest.mark.slow
def test_a_second_turn_on_the_first_turns_pages_answers_as_transformers(
    loaded, reference, prompts, answers
):
    runs = Runs(loaded.model, num_pages=200, page_size=PAGE)
    for prompt, answer in list(zip(prompts, answers, strict=True))[2:4]:
        first = runs.start(prompt, STEPS)
        runs.prefill(first)
        runs.decode([first], STEPS - 1)
        history = prompt + answer + prompts[0]
        kept = (len(prompt) + STEPS - 1) // PAGE
        second = runs.start(history, STEPS)
        second.pages[:kept] = first.pages[:kept]
        second.num_kv = kept * PAGE
        runs.prefill(second)
        runs.decode([second], STEPS - 1)
        assert second.output == reference_greedy(reference, history, STEPS)
        runs = Runs(loaded.model, num_pages=200, page_size=PAGE)


@pytest.fixture(scope="module")
def bf16(cache: Path) -> LoadedModel:
    return load_engine_model("smollm2", "bfloat16", device="cpu", cache_dir=cache)


@pytest.mark.slow
def test_bf16_answers_differ_only_where_the_two_best_logits_are_within_rounding(
    bf16, gguf, prompts, capsys
):
    """The reference is transformers in bf16: its logits are multiples of a bf16 step."""
    reference = load_reference(gguf, torch.bfloat16)
    runs = Runs(bf16.model, num_pages=200, page_size=PAGE)
    places = differing = 0
    # The reference takes a second for 15 tokens of prefill on a CPU without bf16 units.
    for prompt in (prompt for prompt in prompts if len(prompt) < 600):
        answer = runs.greedy(prompt, STEPS)
        logits = reference_logits(reference, prompt + answer)[len(prompt) - 1 : -1]
        best = logits.max(-1).values
        chosen = logits.gather(-1, torch.tensor(answer)[:, None])[:, 0]
        places += STEPS
        differing += int((chosen < best).sum())
        # bf16 keeps 8 bits: two steps of the largest logit, through thirty rounded layers.
        assert (best - chosen <= 4 * 2.0**-8 * logits.abs().amax(-1)).all(), len(prompt)
    with capsys.disabled():
        print(f"\nbf16: {differing} of {places} tokens differ, all within rounding")
    assert differing <= places // 20


def test_two_processes_that_start_at_once_convert_once(tmp_path, gguf):
    code = (
        "import sys; from pathlib import Path\n"
        "import kvloop.engine.model_files as m\n"
        "convert = m._convert\n"
        "def counted(*a):\n"
        "    print('converted'); convert(*a)\n"
        "m._convert = counted\n"
        "print(m.resolve_model('smollm2', 'bfloat16', Path(sys.argv[1])).directory)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum(output.count("converted") for output in outputs) == 1
    assert outputs[0][-1] == outputs[1][-1]
    directory = resolve_model("smollm2", "bfloat16", tmp_path).directory
    assert sorted(path.name for path in directory.parent.iterdir()) == ["bfloat16", "lock"]
