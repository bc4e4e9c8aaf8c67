"""From messages or text to the ids of a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from kvloop.router.history import History, Known
from kvloop.router.prompt_list import Prompt, check_ids
from kvloop.router.tokenizer import ChatTokenizer, Message

Drift = Literal["none", "repaired", "unrepaired"]
_MAX_TRIMMED_TOKENS = 8
"""Tokens at an answer's end that a template may strip (blanks)."""


class ChatPrompt(NamedTuple):
    """`drift`: whether the generated ids differ from tokenizing anew, and were used."""

    ids: list[int]
    drift: Drift


def chat_prompt(
    tokenizer: ChatTokenizer,
    history: History,
    seed: bytes | None,
    messages: Sequence[Message],
    variables: Mapping[str, Any],
) -> ChatPrompt:
    """Ids of a chat, repeating those of earlier answers where they decode to the same text."""
    text = tokenizer.render(messages, variables)
    plain = tokenizer.encode(text, add_special_tokens=False)
    known = history.find(seed, messages)
    if known is None:
        return ChatPrompt(plain, "none")
    faithful = _faithful(tokenizer, known, text)
    if faithful is None:
        differs = plain[: len(known.ids)] != list(known.ids)
        return ChatPrompt(plain, "unrepaired" if differs else "none")
    return ChatPrompt(faithful, "none" if faithful == plain else "repaired")


def _faithful(tokenizer: ChatTokenizer, known: Known, text: str) -> list[int] | None:
    ids = list(known.ids)
    for end in range(len(ids), max(known.num_prompt, len(ids) - _MAX_TRIMMED_TOKENS) - 1, -1):
        start = tokenizer.decode(ids[:end], skip_special_tokens=False)
        if text.startswith(start):
            rest = tokenizer.encode(text[len(start) :], add_special_tokens=False)
            return ids[:end] + rest
    return None


def text_prompts(
    tokenizer: ChatTokenizer, prompts: Sequence[Prompt], param: str
) -> list[list[int]]:
    """Ids of prompts given as text or ids; raises BadRequest for ids the model does not have."""
    tokenized = []
    for prompt in prompts:
        if isinstance(prompt, str):
            ids = tokenizer.encode(prompt, add_special_tokens=True)
        else:
            check_ids(prompt, tokenizer.vocab_size, param)
            ids = prompt
        tokenized.append(ids)
    return tokenized
