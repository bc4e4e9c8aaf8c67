"""The prefill node's front: takes attempts of decode nodes, streams what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from kvloop.engine.event_streams import EventStreams
from kvloop.engine.front import NodeFront, error_response, json_response, run_front
from kvloop.engine.messages import Attempt, AttemptEvent, ToFront
from kvloop.engine.node_config import NodeConfig
from kvloop.shared_cache.wire import (
    CancelReply,
    CancelRequest,
    PrefillDone,
    PrefillEvent,
    PrefillRequest,
    Refused,
    encode_line,
)

INCARNATION_HEADER = "X-Kvloop-Incarnation"
_GRACE_S = 5.0
"""For attempts under way when the node is told to stop."""


class PrefillFront(NodeFront):
    """Routes `/kvloop/prefill` and `/kvloop/cancel`."""

    engine_module = "kvloop.prefill.engine_main"

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        self._events: EventStreams[PrefillEvent] = EventStreams()
        self.app.post("/kvloop/prefill")(self._prefill)
        self.app.post("/kvloop/cancel")(self._cancel)

    def on_message(self, message: ToFront) -> None:
        assert isinstance(message, AttemptEvent)
        self._events.put(message.attempt, message.event)

    def end_streams(self) -> None:
        self._events.end_all()

    async def before_close(self) -> None:
        """End the engine while the port is still ours: a refused connection means a dead sender."""
        await self._events.wait_empty(max(_GRACE_S, self.config.finish_timeout_s))
        await self.engine.stop_process()
        self.end_streams()

    async def _prefill(self, request: Request) -> Response:
        if not self.is_node(request):
            return error_response(401, "the node secret is missing or wrong")
        if not self.is_serving or self.hello is None:
            return error_response(503, "the node is starting or stopping")
        try:
            asked = msgspec.json.decode(await request.body(), type=PrefillRequest)
        except msgspec.MsgspecError as error:
            return error_response(400, f"not a PrefillRequest: {error}")
        if asked.attempt in self._events:
            return error_response(409, f"attempt {asked.attempt} is in use")
        return StreamingResponse(
            self._stream(asked),
            media_type="application/x-ndjson",
            headers={INCARNATION_HEADER: self.hello.incarnation},
        )

    async def _stream(self, asked: PrefillRequest) -> AsyncIterator[bytes]:
        # Asked for here and not before: a response that never begins to stream owns nothing.
        is_over = False
        with self._events.open(asked.attempt) as events:
            self.engine.send(Attempt(asked))
            try:
                # The engine ends every attempt by its deadline; the margin is for a stuck one.
                async with asyncio.timeout(asked.timeout_s + 10):
                    async for event in events:
                        is_over = isinstance(event, PrefillDone | Refused)
                        yield encode_line(event)
                        if is_over:
                            return
            finally:
                if not is_over and self.is_serving:
                    # Decode is gone or has given up: compute no further for it.
                    self.spawn(self._stop(asked))

    async def _stop(self, asked: PrefillRequest) -> None:
        await self.engine.cancel(asked.request_id, asked.attempt)

    async def _cancel(self, request: Request) -> Response:
        if not self.is_node(request):
            return error_response(401, "the node secret is missing or wrong")
        if self.hello is None:
            return error_response(503, "the engine is starting")
        try:
            asked = msgspec.json.decode(await request.body(), type=CancelRequest)
        except msgspec.MsgspecError as error:
            return error_response(400, f"not a CancelRequest: {error}")
        quiet = await self.engine.cancel(asked.request_id, asked.attempt)
        return json_response(CancelReply(incarnation=self.hello.incarnation, quiet=quiet))


def run(config: NodeConfig) -> None:
    """Serve until SIGTERM."""
    run_front(PrefillFront(config))
