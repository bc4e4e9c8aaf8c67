"""One decode node's answer, and the search for a node that gives one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import ExitStack
from typing import NamedTuple

import aiohttp
import msgspec

from kvloop.router.config import RouterConfig
from kvloop.router.errors import ApiError, UpstreamDied
from kvloop.router.lines import LineReader
from kvloop.router.nodes import NodeRegistry
from kvloop.shared_cache.wire import (
    REQUEST_ID_HEADER,
    SECRET_HEADER,
    Finished,
    GenerateRequest,
    NodeRecord,
    Refused,
    Started,
    Tokens,
    decode_generate_event,
)

log = logging.getLogger(__name__)

MAX_DEATHS = 2
"""Decode nodes that may die on one prompt: one that kills its node must not kill them all."""
_ELSEWHERE = frozenset((409, 429, 503))
"""Refusals that another node may not share; 409: it is not the node we took it for."""


class Attempt(NamedTuple):
    """A request and the node it is for."""

    node: NodeRecord
    request: GenerateRequest


class NodeStream:
    """An answer that has begun. Close it in every case: closing tells the node to stop."""

    def __init__(
        self,
        node: NodeRecord,
        response: aiohttp.ClientResponse,
        registry: NodeRegistry,
        deadline: float,
        stall_s: float,
    ) -> None:
        self.node = node
        self._response = response
        self._registry = registry
        self._lines = LineReader(response.content)
        self._deadline = deadline
        self._stall_s = stall_s
        self._held = ExitStack()
        self._held.enter_context(registry.in_flight(node.incarnation))

    async def first(self) -> Started | Refused:
        """The event that says whether the node serves the request."""
        event = await self._read()
        if not isinstance(event, Started | Refused):
            raise ConnectionError(f"began with {type(event).__name__} instead of Started")
        return event

    def count_on(self, incarnation: str) -> None:
        """Count the request on the prefill node too, until the stream is closed."""
        self._held.enter_context(self._registry.in_flight(incarnation))

    async def next(self) -> Tokens | Finished:
        """The next event; raises UpstreamDied, or ApiError if the node gives up or is too late."""
        try:
            event = await self._read()
        except TimeoutError:
            raise ApiError(
                504, "the answer took longer than the server allows", code="timeout"
            ) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            self._registry.suspect(self.node)
            log.warning("decode node %s died in mid-answer: %s", self.node.url, error)
            raise UpstreamDied(
                "the decode node went away in mid-answer; send the request again"
            ) from error
        if isinstance(event, Refused):
            raise ApiError(
                event.status, event.message, code=event.kind, retry_after_s=event.retry_after_s
            )
        if isinstance(event, Started):
            raise UpstreamDied("the decode node broke the protocol: Started twice")
        return event

    def close(self) -> None:
        """Drop the connection unless the answer was read to its end. Idempotent."""
        self._held.close()
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()

    async def _read(self) -> Started | Tokens | Finished | Refused:
        alive = lambda: self._registry.is_alive(self.node)  # noqa: E731
        line = await self._lines.read(self._deadline, self._stall_s, alive)
        if line is None:
            raise ConnectionError("ended without saying so")
        try:
            return decode_generate_event(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConnectionError(f"sent a line that is no event: {error}") from None


class Upstream:
    """Opens answers at decode nodes."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        registry: NodeRegistry,
        config: RouterConfig,
        secret: str | None,
    ) -> None:
        self._session = session
        self._registry = registry
        self._config = config
        self._secret = secret

    async def open(
        self, attempts: Iterable[Attempt], header_id: str, deadline: float
    ) -> tuple[NodeStream, Started]:
        """Try nodes in turn until one starts; raises what the last failure means to the client."""
        failure = ApiError(503, "no decode node is ready", code="no_decode_node", retry_after_s=1)
        died = 0
        for attempt in attempts:
            try:
                return await self._try(attempt, header_id, deadline)
            except _Elsewhere as refusal:
                failure = refusal.failure if failure.status != 429 else failure
                died += refusal.died
            if died == MAX_DEATHS:
                break
        raise failure

    async def _try(
        self, attempt: Attempt, header_id: str, deadline: float
    ) -> tuple[NodeStream, Started]:
        response = await self._post(attempt, header_id, deadline)
        stream = NodeStream(
            attempt.node, response, self._registry, deadline, self._config.stall_timeout_s
        )
        try:
            event = await self._first(attempt.node, stream, response.status)
        except BaseException:
            stream.close()
            raise
        if isinstance(event, Started):
            return stream, event
        stream.close()
        failure = ApiError(
            event.status, event.message, code=event.kind, retry_after_s=event.retry_after_s
        )
        if event.status == 409:
            raise _Elsewhere(_unreachable())
        if event.status in _ELSEWHERE:
            raise _Elsewhere(failure)
        raise failure

    async def _first(self, node: NodeRecord, stream: NodeStream, status: int) -> Started | Refused:
        try:
            return await stream.first()
        except TimeoutError:
            raise _too_late() from None
        except (aiohttp.ClientError, ConnectionError) as error:
            log.warning(
                "decode node %s failed before its answer (HTTP %d): %s", node.url, status, error
            )
            if status != 200:
                raise _Elsewhere(_unreachable()) from error
            self._registry.suspect(node)
            raise _Elsewhere(_unreachable(), died=1) from error

    async def _post(
        self, attempt: Attempt, header_id: str, deadline: float
    ) -> aiohttp.ClientResponse:
        posting = asyncio.create_task(self._send(attempt, header_id))
        try:
            return await self._headers(posting, attempt.node, deadline)
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            if asyncio.get_running_loop().time() >= deadline:
                raise _too_late() from None
            log.warning("decode node %s cannot be reached: %s", attempt.node.url, error)
            self._registry.suspect(attempt.node)
            died = not isinstance(
                error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError
            )
            raise _Elsewhere(_unreachable(), died=int(died)) from error
        finally:
            posting.cancel()

    async def _headers(
        self, posting: asyncio.Task[aiohttp.ClientResponse], node: NodeRecord, deadline: float
    ) -> aiohttp.ClientResponse:
        loop = asyncio.get_running_loop()
        while True:
            wait_s = min(self._config.stall_timeout_s, deadline - loop.time())
            done, _ = await asyncio.wait({posting}, timeout=max(0, wait_s))
            if done:
                return posting.result()
            if loop.time() >= deadline or not self._registry.is_alive(node):
                raise TimeoutError("no response, and not heard of")

    async def _send(self, attempt: Attempt, header_id: str) -> aiohttp.ClientResponse:
        headers = {"Content-Type": "application/json", REQUEST_ID_HEADER: header_id}
        if self._secret is not None:
            headers[SECRET_HEADER] = self._secret
        connect_s = self._config.connect_timeout_s
        return await self._session.post(
            f"{attempt.node.url}/kvloop/generate",
            data=msgspec.json.encode(attempt.request),
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_s),
        )


class _Elsewhere(Exception):
    """This node did not take the request; another may."""

    def __init__(self, failure: ApiError, died: int = 0) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.died = died


def _unreachable() -> ApiError:
    return ApiError(503, "no decode node could be reached", code="no_decode_node", retry_after_s=1)


def _too_late() -> ApiError:
    return ApiError(504, "no node answered in time", code="timeout")
