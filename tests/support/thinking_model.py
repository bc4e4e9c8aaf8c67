"""A tiny model whose answers have a thought and a reply, as reasoning models' do.

Its layers compute keys and values as any Llama's, but add nothing to what they are given: the next
token depends on the last one only. A thought is in lower case, a reply in upper case; each goes on
for a sampled number of letters, with the mean that was asked for.
"""

from __future__ import annotations

import math
import string
from pathlib import Path
from typing import Any, Literal

import torch
from served_models import SMALL
from thinking_templates import byte_tokenizer

Begins = Literal["<think>", "thought", "reply"]
_OUTSIDE, _THINKING, _REPLYING = range(3)
_NEVER = -40.0
_STATE = 2.0
"""Of a state's own entry in an embedding; the others are 1 or -1, so that all are of one length."""


def save_thinker(
    path: Path,
    template: str,
    *,
    begins: Begins = "<think>",
    mean_thought: int = 100,
    mean_reply: int = 60,
) -> str:
    """Write model and tokenizer to the directory; returns it. `begins` is what an answer does."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer(template, shown=("<think>", "</think>"))
    torch.manual_seed(7)
    ends = {"tie_word_embeddings": False, "eos_token_id": tokenizer.eos_token_id}
    config = LlamaConfig(vocab_size=len(tokenizer), **SMALL, **ends)
    model = LlamaForCausalLM(config).float()
    with torch.no_grad():
        _silence(model)
        _speak(model, tokenizer, begins, mean_thought, mean_reply)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def _silence(model: Any) -> None:
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()


def _speak(model: Any, tokenizer: Any, begins: Begins, mean_thought: int, mean_reply: int) -> None:
    thought, reply = (tokenizer.convert_tokens_to_ids(list(letters)) for letters in _LETTERS)
    opening, closing = tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    first = {"<think>": [opening], "thought": thought, "reply": reply}[begins]
    embed, head = model.model.embed_tokens.weight, model.lm_head.weight
    embed.copy_(torch.randint(0, 2, embed.shape) * 2.0 - 1)
    embed[:, :4] = 0
    head.zero_()
    for state, ids in ((_THINKING, [opening, *thought]), (_REPLYING, [closing, *reply])):
        embed[ids, state] = _STATE
    embed[embed[:, :3].sum(-1) == 0, _OUTSIDE] = _STATE
    head[:, :3] = _NEVER / _STATE
    head[first, _OUTSIDE] = 0
    head[thought, _THINKING] = head[reply, _REPLYING] = 0
    head[closing, _THINKING] = _odds(len(thought), mean_thought) / _STATE
    head[tokenizer.eos_token_id, _REPLYING] = _odds(len(reply), mean_reply) / _STATE


def _odds(num_letters: int, mean: int) -> float:
    """Logit of the token that ends a run of letters, each with logit 0."""
    return math.log(num_letters / (mean - 1))


_LETTERS = (string.ascii_lowercase, string.ascii_uppercase)
