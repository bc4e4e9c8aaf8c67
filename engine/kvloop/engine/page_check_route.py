"""The front's side of a look at a canary's pages, for callers who know the nodes' secret."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request, Response

from kvloop.engine.engine_client import EngineClient
from kvloop.engine.messages import CheckPages
from kvloop.engine.node_config import NodeConfig
from kvloop.engine.replies import error_response, raw_json
from kvloop.shared_cache.canary import MAX_PAGES, VERIFY_PATH, PageQuestion, parse_question

_MAX_BODY_BYTES = 1 << 20
_TIMEOUT_S = 30.0

Refusal = Callable[[Request], Response | None]


class PageCheckRoute:
    """Every call is authorized before anything of it is read."""

    def __init__(
        self, config: NodeConfig, engine: Callable[[], EngineClient], refusal: Refusal
    ) -> None:
        """`refusal` is the answer to a caller who may not, or cannot now."""
        self._config, self._engine, self._refusal = config, engine, refusal

    def add_to(self, app: FastAPI) -> None:
        """Add the call."""
        app.add_api_route(VERIFY_PATH, self._verify, methods=["POST"])

    async def _verify(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        try:
            question = parse_question(await _body(request))
            self._check(question)
        except ValueError as error:
            return error_response(400, str(error))
        reply = await self._engine().act(lambda call: CheckPages(call, question), _TIMEOUT_S)
        return raw_json(reply.body, reply.status)

    def _check(self, question: PageQuestion) -> None:
        num_pages = len(question.tokens) // self._config.page_size
        if not 0 < num_pages <= MAX_PAGES:
            raise ValueError(
                f"tokens must fill 1 to {MAX_PAGES} pages of {self._config.page_size}, "
                f"got {len(question.tokens)} tokens"
            )
        if question.look == "device" and self._config.role != "decode":
            raise ValueError("look: 'device' is asked of decode nodes, this one is a prefill node")


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise ValueError(f"the body must be at most {_MAX_BODY_BYTES} bytes long")
    return body
