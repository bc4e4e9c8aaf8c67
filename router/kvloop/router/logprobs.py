"""Log probabilities in OpenAI's two shapes and in SGLang's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kvloop.router.tokenizer import ChatTokenizer
from kvloop.shared_cache.wire import TokenLogprob

_LOWEST = -9999.0
"""What OpenAI writes for minus infinity, which JSON cannot."""


def chat_logprobs(tokenizer: ChatTokenizer, entries: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The `logprobs` of a chat choice."""
    content = [
        {
            **_chat_token(tokenizer, entry.token, entry.logprob),
            "top_logprobs": [_chat_token(tokenizer, token, lp) for token, lp in entry.top],
        }
        for entry in entries
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(
    tokenizer: ChatTokenizer, entries: Sequence[TokenLogprob], offset: int, with_top: bool
) -> dict[str, Any]:
    """The `logprobs` of a text completion; `offset` is where the first token's text begins."""
    tokens = [tokenizer.token_text(entry.token) for entry in entries]
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    tops = [{tokenizer.token_text(t): _finite(lp) for t, lp in entry.top} for entry in entries]
    return {
        "tokens": tokens,
        "token_logprobs": [_finite(entry.logprob) for entry in entries],
        "top_logprobs": tops if with_top else None,
        "text_offset": offsets,
    }


def sglang_logprobs(entries: Sequence[TokenLogprob], with_top: bool) -> dict[str, Any]:
    """The logprob fields of SGLang's `meta_info`: (logprob, id, text) with no text."""
    fields: dict[str, Any] = {
        "output_token_logprobs": [(_finite(e.logprob), e.token, None) for e in entries]
    }
    if with_top:
        tops = [[(_finite(lp), token, None) for token, lp in e.top] for e in entries]
        fields["output_top_logprobs"] = tops
    return fields


def _chat_token(tokenizer: ChatTokenizer, token: int, logprob: float) -> dict[str, Any]:
    return {
        "token": tokenizer.token_text(token),
        "logprob": _finite(logprob),
        "bytes": tokenizer.token_bytes(token),
    }


def _finite(logprob: float) -> float:
    return max(logprob, _LOWEST) if not math.isnan(logprob) else _LOWEST
