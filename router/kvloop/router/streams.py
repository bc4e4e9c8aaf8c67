"""Server-sent events, and the end of work when the client goes away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kvloop.router.errors import ApiError

log = logging.getLogger(__name__)
Result = TypeVar("Result")

DONE = b"data: [DONE]\n\n"


def sse(event: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: " + msgspec.json.encode(event) + b"\n\n"


class EventStream(Response):
    """Sends events as they come; a failure becomes an error event, after which nothing follows.

    `close` runs once in every case. A client that goes away ends the generator at once.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes], close: Callable[[], None]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-cache"
        self.headers["x-accel-buffering"] = "no"
        self._events = events
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the events or the client end."""
        sending = asyncio.create_task(self._send_all(send))
        watching = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({sending, watching}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancel(sending, watching)
            await self._events.aclose()
            self._close()

    async def _send_all(self, send: Send) -> None:
        head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(head)
        try:
            async for event in self._events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        except ApiError as error:
            await send(_body(sse(error.body())))
        except Exception:
            log.exception("a stream failed")
            failure = ApiError(500, "the server had an error; see its log", code="internal_error")
            await send(_body(sse(failure.body())))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Await `work`, but cancel it and raise ApiError 499 if the client goes away before."""
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_gone(request.receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ApiError(499, "the client closed the connection", code="client_gone")
    finally:
        await _cancel(working, watching)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _body(data: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": True}
