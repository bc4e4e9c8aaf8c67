"""One request to an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from kvloop.benchmark.stream import BadAnswer, StreamedAnswer
from kvloop.benchmark.workload import Content
from kvloop.shared_cache.errors import ConfigError

_PATHS: Mapping[Content, str] = {
    "token-ids": "/v1/completions",
    "text": "/v1/chat/completions",
}
_LINE_LIMIT = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The server and how to talk to it."""

    url: str
    model: str
    api_key: str | None = None
    cache_salt: str | None = None
    content: Content = "token-ids"
    output_length: int = 32
    timeout_s: float = 600.0
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the request beside or instead of those below."""

    @property
    def headers(self) -> dict[str, str]:
        return auth_headers(self.api_key)

    def body(self, prompt: Any) -> dict[str, Any]:
        """The request: token ids, or chat messages."""
        is_chat = self.content == "text"
        body = {
            "model": self.model,
            "messages" if is_chat else "prompt": prompt,
            "max_tokens": self.output_length,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if not is_chat:
            body["return_token_ids"] = True
        if self.cache_salt is not None:
            body["cache_salt"] = self.cache_salt
        return body | dict(self.extra)


def auth_headers(api_key: str | None) -> dict[str, str]:
    """The header that carries an API key, if there is one."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One answered request and when it was under way."""

    answer: StreamedAnswer
    usage: Mapping[str, Any]
    sent_at: float
    ended_at: float


async def ask(http: aiohttp.ClientSession, target: Target, prompt: Any) -> Exchange:
    """Send a prompt and read the whole answer; raises BadAnswer whatever goes wrong."""
    try:
        async with asyncio.timeout(target.timeout_s):
            return await _exchange(http, target, prompt)
    except TimeoutError as error:
        raise BadAnswer("timeout", f"no whole answer in {target.timeout_s:g} s") from error
    except aiohttp.ClientConnectorError as error:
        raise BadAnswer("connect", str(error)) from error
    except (aiohttp.ClientError, ValueError) as error:
        raise BadAnswer("disconnect", str(error) or type(error).__name__) from error


async def _exchange(http: aiohttp.ClientSession, target: Target, prompt: Any) -> Exchange:
    body, answer, sent_at = target.body(prompt), StreamedAnswer(), time.monotonic()
    url = target.url + _PATHS[target.content]
    async with http.post(url, json=body, headers=target.headers) as response:
        if response.status != 200:
            raise BadAnswer(f"http_{response.status}", (await response.text())[:500])
        async for line in response.content:
            answer.add_line(line, time.monotonic())
    usage = answer.finish()
    if target.content == "token-ids" and not answer.ids:
        raise BadAnswer(
            "no_token_ids",
            "the server returned no token ids (return_token_ids), so the history cannot be sent "
            "on; use --text",
        )
    return Exchange(answer=answer, usage=usage, sent_at=sent_at, ended_at=time.monotonic())


async def find_model(http: aiohttp.ClientSession, url: str, api_key: str | None) -> str:
    """The first model that the server names; raises ConfigError naming the flag."""
    try:
        async with http.get(
            f"{url}/v1/models",
            headers=auth_headers(api_key),
            timeout=aiohttp.ClientTimeout(total=30),
        ) as response:
            if response.status == 401:
                raise ConfigError(f"{url} wants an API key: give the right one with --api-key")
            body = await response.json()
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise ConfigError(
            f"URL {url}: no answer from /v1/models ({error or type(error).__name__}); "
            "is a server there?"
        ) from error
    if response.status != 200 or not body.get("data"):
        raise ConfigError(f"URL {url}: /v1/models names no model; name one with --model")
    return str(body["data"][0]["id"])


def open_session() -> aiohttp.ClientSession:
    """A session without a connection limit of its own: the benchmark has its own."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
        read_bufsize=_LINE_LIMIT,
        trust_env=False,
    )
