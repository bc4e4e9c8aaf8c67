"""A two-turn chat through the OpenAI API; turn 2 may read nothing but the shared cache."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from kvloop.cli.up.usage import Usage, parse_usage

FIRST = (
    "Explain to a curious beginner how a large public library works. Go through it step by step: "
    "how books are bought, catalogued, shelved, found, borrowed, returned and repaired, and who "
    "does the work. Write at least two long paragraphs of plain text."
)
SECOND = "Thank you. Which of these steps takes the most time, and why? Answer in two sentences."
FIRST_TOKENS = 160
SECOND_TOKENS = 64
_TURN_DEADLINE_S = 180.0


class ChatFailed(Exception):
    """The API refused or broke off; says what it answered."""


@dataclass(slots=True, kw_only=True)
class Turn:
    """One answer as it arrived."""

    text: str = ""
    prompt_ids: list[int] = field(default_factory=list)
    answer_ids: list[int] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    ttft_s: float = 0.0
    total_s: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        """Rate after the first token."""
        after_first = self.usage.completion_tokens - 1
        took = self.total_s - self.ttft_s
        return after_first / took if took > 0 and after_first > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatApi:
    """Where the chat goes. A fresh `salt` keeps out pages of earlier runs."""

    http: aiohttp.ClientSession
    url: str
    model: str
    salt: str

    async def first_turn(self) -> Turn:
        """Greedy, and long enough for several pages of answer."""
        return await self._turn([{"role": "user", "content": FIRST}], FIRST_TOKENS, "on")

    async def second_turn(self, first: Turn) -> Turn:
        """The whole history again, with every tier but the shared cache shut for reading."""
        messages = [
            {"role": "user", "content": FIRST},
            {"role": "assistant", "content": first.text},
            {"role": "user", "content": SECOND},
        ]
        return await self._turn(messages, SECOND_TOKENS, "l3_only")

    async def _turn(self, messages: Sequence[dict[str, str]], max_tokens: int, cache: str) -> Turn:
        body = {
            "model": self.model,
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_token_ids": True,
            "cache_salt": self.salt,
            "kvloop": {"cache": cache},
        }
        try:
            async with asyncio.timeout(_TURN_DEADLINE_S):
                return await self._stream(body)
        except TimeoutError as error:
            raise ChatFailed(f"no complete answer within {_TURN_DEADLINE_S:.0f} s") from error
        except aiohttp.ClientError as error:
            raise ChatFailed(f"the connection broke: {error}") from error

    async def _stream(self, body: dict[str, Any]) -> Turn:
        turn, start = Turn(), time.monotonic()
        async with self.http.post(f"{self.url}/v1/chat/completions", json=body) as answer:
            if answer.status != 200:
                raise ChatFailed(f"HTTP {answer.status}: {(await answer.text())[:500]}")
            async for event in _events(answer):
                add_event(turn, event, time.monotonic() - start)
        turn.total_s = time.monotonic() - start
        if not turn.usage.completion_tokens:
            raise ChatFailed("the answer came without usage or without tokens")
        return turn


async def served_model(http: aiohttp.ClientSession, url: str) -> str:
    """The name that the API serves; raises ChatFailed."""
    async with http.get(f"{url}/v1/models") as answer:
        body = await answer.json()
    if answer.status != 200 or not body.get("data"):
        raise ChatFailed(f"/v1/models names no model: HTTP {answer.status}: {body}")
    return str(body["data"][0]["id"])


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.content:
        data = line.decode().strip().removeprefix("data:").strip()
        if data == "[DONE]":
            return
        if data.startswith("{"):
            yield json.loads(data)
    raise ChatFailed("the stream ended before [DONE]")


def add_event(turn: Turn, event: dict[str, Any], at_s: float) -> None:
    """Take one chunk of the stream in; raises ChatFailed if it is an error."""
    if "error" in event:
        raise ChatFailed(f"the answer broke off: {event['error']}")
    if event.get("usage"):
        turn.usage = parse_usage(event["usage"])
    turn.prompt_ids = turn.prompt_ids or event.get("prompt_token_ids") or []
    for choice in event.get("choices", ()):
        turn.prompt_ids = turn.prompt_ids or choice.get("prompt_token_ids") or []
        ids, text = choice.get("token_ids") or [], choice.get("delta", {}).get("content") or ""
        if (ids or text) and not turn.ttft_s:
            turn.ttft_s = at_s
        turn.answer_ids += ids
        turn.text += text
