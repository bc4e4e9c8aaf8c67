"""The decode node's front: streams answers, and asks prefill nodes on its engine's behalf."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from kvloop.decode.prefill_client import PrefillClient
from kvloop.engine.event_streams import EventStreams
from kvloop.engine.front import NodeFront, error_response, run_front
from kvloop.engine.messages import Abort, Answer, AskPrefill, GiveUp, Submit, ToFront
from kvloop.engine.node_config import NodeConfig
from kvloop.shared_cache.wire import (
    Finished,
    GenerateEvent,
    GenerateRequest,
    Refused,
    encode_line,
)


class DecodeFront(NodeFront):
    """Routes `/kvloop/generate`."""

    engine_module = "kvloop.decode.engine_main"

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        self._answers: EventStreams[GenerateEvent] = EventStreams()
        self._prefill: PrefillClient | None = None
        self.app.post("/kvloop/generate")(self._generate)

    def on_message(self, message: ToFront) -> None:
        if self._prefill is None:
            self._prefill = PrefillClient(self.http, self.engine.send)
        if isinstance(message, Answer):
            self._answers.put(message.request_id, message.event)
        elif isinstance(message, AskPrefill):
            self.spawn(self._prefill.ask(message))
        else:
            assert isinstance(message, GiveUp)
            self.spawn(self._prefill.give_up(message))

    def end_streams(self) -> None:
        self._answers.end_all()

    async def before_close(self) -> None:
        """Finish what has begun: the router already sends nothing new."""
        await self._answers.wait_empty(self.config.finish_timeout_s)

    async def _generate(self, request: Request) -> Response:
        if not self.is_node(request):
            return error_response(401, "the node secret is missing or wrong")
        if not self.is_serving:
            return error_response(503, "the node is starting or stopping")
        try:
            asked = msgspec.json.decode(await request.body(), type=GenerateRequest)
        except msgspec.MsgspecError as error:
            return error_response(400, f"not a GenerateRequest: {error}")
        if asked.request_id in self._answers:
            return error_response(409, f"request id {asked.request_id} is in use")
        return StreamingResponse(self._stream(asked), media_type="application/x-ndjson")

    async def _stream(self, asked: GenerateRequest) -> AsyncIterator[bytes]:
        # Submitted here and not before: a response that never begins to stream owns nothing.
        is_over = False
        with self._answers.open(asked.request_id) as events:
            self.engine.send(Submit(asked))
            try:
                async with asyncio.timeout(asked.timeout_s):
                    async for event in events:
                        is_over = isinstance(event, Finished | Refused)
                        yield encode_line(event)
                        if is_over:
                            return
            except TimeoutError:
                yield encode_line(
                    Refused(status=504, kind="timeout", message=f"no end in {asked.timeout_s} s")
                )
            finally:
                if not is_over:
                    self.engine.send(Abort(asked.request_id))


def run(config: NodeConfig) -> None:
    """Serve until SIGTERM."""
    run_front(DecodeFront(config))
