"""A canary's way to nodes: turns on the path that every request takes, and looks at its pages."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import msgspec

from kvloop.router.canary.judge import HandOffFailure, Seen, Turn
from kvloop.router.errors import ApiError
from kvloop.router.upstream import Attempt, NodeStream, Upstream
from kvloop.shared_cache.canary import VERIFY_PATH, PageQuestion, PageReply
from kvloop.shared_cache.wire import (
    SECRET_HEADER,
    GenerateRequest,
    NodeRecord,
    Tokens,
)

_LOOK_S = 15.0
_INFO_S = 5.0
_BUSY = 429


class Probe:
    """Never raises for what a node does; everything ends by the deadlines given."""

    def __init__(
        self, session: aiohttp.ClientSession, upstream: Upstream, secret: str | None
    ) -> None:
        self._session, self._upstream = session, upstream
        self._headers = {SECRET_HEADER: secret} if secret is not None else {}

    async def turn(self, decode: NodeRecord, request: GenerateRequest, deadline: float) -> Turn:
        """One answer of this node; `deadline` is of the event loop's clock."""
        now = asyncio.get_running_loop().time
        began = now()
        attempts = [Attempt(decode, request)]
        try:
            stream, started = await self._upstream.open(attempts, request.request_id, deadline)
        except ApiError as error:
            is_busy = error.status == _BUSY
            return Turn(seconds=now() - began, error=error.message, is_busy=is_busy)
        start_s, ids = now() - began, list[int]()
        wrong = await _collect(stream, ids, request.sampling.max_tokens)
        return Turn(seconds=now() - began, start_s=start_s, started=started, ids=ids, error=wrong)

    async def look(self, node: NodeRecord, question: PageQuestion, deadline: float) -> Seen:
        """What a node says of a canary's pages."""
        left_s = deadline - asyncio.get_running_loop().time()
        try:
            async with self._session.post(
                f"{node.url}{VERIFY_PATH}",
                data=msgspec.json.encode(question),
                headers={"Content-Type": "application/json", **self._headers},
                timeout=aiohttp.ClientTimeout(total=max(min(left_s, _LOOK_S), 0.1)),
                allow_redirects=False,
            ) as answer:
                body = await answer.read()
                if answer.status != 200:
                    return f"HTTP {answer.status}{_message(body)}"
                return msgspec.json.decode(body, type=PageReply)
        except msgspec.DecodeError as error:
            return f"its answer is no PageReply: {error}"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return str(error) or type(error).__name__

    async def hand_off_failure(self, decode: NodeRecord, request_id: str) -> HandOffFailure | None:
        """Why decode gave up on a prefill node; None where it did not, or does not tell."""
        try:
            async with self._session.get(
                f"{decode.url}/server_info",
                timeout=aiohttp.ClientTimeout(total=_INFO_S),
                allow_redirects=False,
            ) as answer:
                failures = json.loads(await answer.read())["hand_off_failures"]
                mine = [one for one in failures if one["request_id"] == request_id]
                return _last(mine) if mine else None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, LookupError, TypeError):
            return None


async def _collect(stream: NodeStream, ids: list[int], wanted: int) -> str | None:
    """Read an answer to its end into `ids`; returns what was wrong with it."""
    try:
        while isinstance(event := await stream.next(), Tokens):
            ids += event.ids
    except ApiError as error:
        return error.message
    finally:
        stream.close()
    if len(ids) != wanted:
        return f"the answer has {len(ids)} tokens instead of {wanted} ({event.reason})"
    return None


def _last(failures: list[dict[str, Any]]) -> HandOffFailure:
    last = failures[-1]
    return HandOffFailure(str(last["reason"]), is_busy=last.get("status") == _BUSY)


def _message(body: bytes) -> str:
    try:
        message: Any = json.loads(body)["error"]["message"]
    except (ValueError, LookupError, TypeError):
        return ""
    return f": {message}"
