"""Two turns of a chat that nobody had before, and what the answers say of the cache."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from kvloop.operator.errors import NodeError
from kvloop.operator.nodes.answers import words
from kvloop.operator.nodes.body import read_body

_SYLLABLES = ("ba", "do", "fe", "gi", "ku", "la", "mo", "ne", "pi", "ru", "sa", "to", "vi", "wu")
_MAX_BYTES = 8 << 20
DETAILS = "return_cached_tokens_details"
"""SGLang's field for cached tokens by tier."""
Message = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One answer."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None
    """Of the prompt; None where the answer does not tell."""
    storage_tokens: int | None = None
    """Of those, from the shared cache; None where the answer does not tell."""


def first_turn(page_size: int) -> list[Message]:
    """Three pages at least, drawn anew: every word is a token or more."""
    return [_user(f"Note {secrets.token_hex(8)}: {_drawn(3 * page_size)}. Tell a long story.")]


def second_turn(first: Sequence[Message], answer: str) -> list[Message]:
    """The same chat goes on."""
    return [*first, {"role": "assistant", "content": answer}, _user("And then?")]


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _drawn(num_words: int) -> str:
    return " ".join("".join(secrets.choice(_SYLLABLES) for _ in range(3)) for _ in range(num_words))


async def say(
    http: aiohttp.ClientSession,
    url: str,
    model: str,
    messages: Sequence[Message],
    *,
    max_tokens: int,
    timeout_s: float,
) -> Turn:
    """Ask a router, or any OpenAI-compatible server. NodeError where it does not answer so."""
    body = {
        "model": model,
        "messages": messages,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
    }
    try:
        return await _ask(http, url, body | {DETAILS: True}, timeout_s)
    except NodeError as error:
        if error.status not in (400, 422) or DETAILS not in str(error):
            raise
        return await _ask(http, url, body, timeout_s)  # a server that knows no such field


async def _ask(
    http: aiohttp.ClientSession, url: str, body: Mapping[str, Any], timeout_s: float
) -> Turn:
    where = f"POST {url}/v1/chat/completions"
    try:
        async with http.post(
            f"{url}/v1/chat/completions",
            json=body,
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            allow_redirects=False,
        ) as reply:
            raw = await read_body(reply, _MAX_BYTES)
    except TimeoutError:
        raise NodeError(f"{where}: no answer within {timeout_s:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise NodeError(f"{where}: {str(error) or type(error).__name__}") from None
    if reply.status >= 300:
        raise NodeError(f"{where}: HTTP {reply.status}: {words(raw)}", status=reply.status)
    return _turn(where, raw)


def _turn(where: str, raw: bytes) -> Turn:
    try:
        answer: Any = msgspec.json.decode(raw)
        usage = answer["usage"]
        details = usage.get("prompt_tokens_details") or {}
        more = (answer.get("sglext") or {}).get("cached_tokens_details") or {}
        return Turn(
            text=answer["choices"][0]["message"]["content"] or "",
            prompt_tokens=int(usage["prompt_tokens"]),
            completion_tokens=int(usage["completion_tokens"]),
            cached_tokens=details.get("cached_tokens"),
            storage_tokens=more.get("storage"),
        )
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise NodeError(f"{where}: no chat completion with usage: {words(raw)[:200]}") from None
