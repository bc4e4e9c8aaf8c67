"""One request to an OpenAI-compatible server, and the server's models."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from kvloop.benchmark.driver.bad_answer import BadAnswer
from kvloop.benchmark.driver.body import encode
from kvloop.benchmark.driver.patience import Patience
from kvloop.benchmark.driver.retry_after import parse_retry_after
from kvloop.benchmark.driver.stream import StreamedAnswer, read_blocks
from kvloop.benchmark.driver.target import Target, auth_headers
from kvloop.shared_cache.errors import ConfigError

MAX_ANSWER_BYTES = 64 << 20
_KEPT_CONNECTION_S = 2.0
"""Shorter than common servers keep an idle one (uvicorn: 5 s), so that none closes under us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One answered request and when it was under way, of `time.monotonic`."""

    answer: StreamedAnswer
    usage: Mapping[str, Any]
    sent_at: float
    ended_at: float

    @property
    def ttft_s(self) -> float:
        """From sending it to the first chunk that carries a token."""
        return self.answer.arrivals[0][0] - self.sent_at


async def ask(
    http: aiohttp.ClientSession,
    target: Target,
    body: Mapping[str, Any],
    *,
    timeout_s: float = 600.0,
    stall_timeout_s: float | None = None,
) -> Exchange:
    """Send a request and read the whole answer; raises BadAnswer whatever goes wrong."""
    try:
        async with Patience(timeout_s, stall_timeout_s or timeout_s) as patience:
            return await _exchange(http, target, encode(body), patience)
    except aiohttp.ClientConnectorError as error:
        raise BadAnswer("connect", str(error)) from error
    except (aiohttp.ServerTimeoutError, TimeoutError) as error:
        raise BadAnswer("connect", str(error) or "no connection in time") from error
    except (aiohttp.ClientError, OSError) as error:
        raise BadAnswer("disconnect", str(error) or type(error).__name__) from error


async def _exchange(
    http: aiohttp.ClientSession, target: Target, data: bytes, patience: Patience
) -> Exchange:
    headers = {"Content-Type": "application/json", **target.headers}
    blocks: list[tuple[float, bytes]] = []
    num_bytes, sent_at = 0, time.monotonic()
    async with http.post(target.endpoint, data=data, headers=headers) as response:
        patience.heard_at = time.monotonic()
        if response.status != 200:
            raise await _refusal(response)
        read = response.content.readany
        while block := await read():
            patience.heard_at = at = time.monotonic()
            blocks.append((at, block))
            num_bytes += len(block)
            if num_bytes > MAX_ANSWER_BYTES:
                raise BadAnswer("too_long", f"the answer has over {MAX_ANSWER_BYTES} bytes")
    # Parsed once it is over: what comes for other streams meanwhile is stamped sooner.
    return _read(blocks, response.content_type, sent_at)


def _read(blocks: list[tuple[float, bytes]], content_type: str, sent_at: float) -> Exchange:
    answer = read_blocks(blocks)
    if not answer.ended_at and content_type != "text/event-stream":
        start = b"".join(block for _, block in blocks)[:200]
        raise BadAnswer(
            "not_streamed", f"no event stream but {content_type} (`stream` was true): {start!r}"
        )
    usage = answer.finish()
    return Exchange(answer=answer, usage=usage, sent_at=sent_at, ended_at=answer.ended_at)


async def _refusal(response: aiohttp.ClientResponse) -> BadAnswer:
    said = (await response.content.read(2000)).decode(errors="replace")[:500]
    return BadAnswer(
        f"http_{response.status}",
        said or f"HTTP {response.status}",
        parse_retry_after(response.headers.get("Retry-After")),
    )


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None
    owned_by: str = ""


class _Models(msgspec.Struct):
    data: list[_Model]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """What a server says of a model."""

    name: str
    context: int | None
    """Tokens of prompt and answer together; None: it does not say."""
    is_kvloop: bool = False
    """Whether kvloop serves it, by what it says of its models."""


async def find_model(
    http: aiohttp.ClientSession, url: str, api_key: str | None, name: str | None = None
) -> ServedModel:
    """The model of that name, or the first that the server names; raises ConfigError."""
    models = await _ask_models(http, url, api_key)
    named = models if name is None else [model for model in models if model.id == name]
    if named:
        first = named[0]
        is_kvloop = first.owned_by == "kvloop"
        return ServedModel(name=first.id, context=first.max_model_len, is_kvloop=is_kvloop)
    if name is None:
        raise ConfigError(f"URL {url}: /v1/models names no model; name one with --model")
    return ServedModel(name=name, context=None)


async def _ask_models(http: aiohttp.ClientSession, url: str, api_key: str | None) -> list[_Model]:
    headers, timeout = auth_headers(api_key), aiohttp.ClientTimeout(total=30)
    try:
        async with http.get(f"{url}/v1/models", headers=headers, timeout=timeout) as response:
            if response.status in (401, 403):
                raise ConfigError(f"{url} wants an API key: give the right one with --api-key")
            said = await response.read()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise ConfigError(
            f"URL {url}: no answer from /v1/models ({error or type(error).__name__}); "
            "is a server there?"
        ) from error
    if response.status != 200:
        return []
    try:
        return msgspec.json.decode(said, type=_Models).data
    except msgspec.DecodeError:
        return []


async def is_alive(http: aiohttp.ClientSession, url: str, within_s: float) -> bool:
    """Whether the server answers anything at all."""
    timeout = aiohttp.ClientTimeout(total=within_s)
    try:
        async with http.get(f"{url}/v1/models", timeout=timeout):
            return True
    except (TimeoutError, aiohttp.ClientError, OSError):
        return False


def open_session() -> aiohttp.ClientSession:
    """A session without a connection limit of its own: the benchmark has its own."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT_CONNECTION_S),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
        # Decompressing would delay what is stamped.
        headers={"Accept-Encoding": "identity"},
        read_bufsize=1 << 20,
        trust_env=False,
    )
