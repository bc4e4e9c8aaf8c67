"""The front's side of the admin API of the shared cache."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response

from kvloop.engine.engine_client import EngineClient
from kvloop.engine.messages import AttachStorage, ClearStorage, DetachStorage, Reply
from kvloop.engine.replies import error_response, raw_json
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.storage_change import parse_storage_change, parse_timeout
from kvloop.shared_cache.wire import Role

_PATH = "/hicache/storage-backend"
_MAX_BODY_BYTES = 64 << 10
_MARGIN_S = 15.0
"""For what an action does beside waiting: the loop's turn, a module's import."""

Refusal = Callable[[Request], Response | None]


class StorageRoutes:
    """Every call is authorized before anything of it is read."""

    def __init__(self, role: Role, engine: Callable[[], EngineClient], refusal: Refusal) -> None:
        """`refusal` is the answer to a caller who may not, or cannot now."""
        self._role, self._engine, self._refusal = role, engine, refusal

    def add_to(self, app: FastAPI) -> None:
        """Add the four calls."""
        for method, path, work in (
            ("GET", _PATH, self._status),
            ("PUT", _PATH, self._attach),
            ("DELETE", _PATH, self._detach),
            ("POST", f"{_PATH}/clear", self._clear),
        ):
            app.add_api_route(path, self._guarded(work), methods=[method])

    def _guarded(
        self, work: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            refusal = self._refusal(request)
            if refusal is not None:
                return refusal
            try:
                return await work(request)
            except ConfigError as error:
                return error_response(400, str(error))

        return handle

    async def _status(self, _request: Request) -> Response:
        return raw_json(await self._engine().call("storage_status"))

    async def _attach(self, request: Request) -> Response:
        change = parse_storage_change(await _body(request), self._role)
        return _answer(
            await self._engine().act(lambda call: AttachStorage(call, change), _MARGIN_S)
        )

    async def _detach(self, request: Request) -> Response:
        timeout_s = parse_timeout(request.query_params, 5.0)
        return _answer(
            await self._engine().act(
                lambda call: DetachStorage(call, timeout_s), timeout_s + _MARGIN_S
            )
        )

    async def _clear(self, request: Request) -> Response:
        timeout_s = parse_timeout(request.query_params, 30.0)
        return _answer(
            await self._engine().act(
                lambda call: ClearStorage(call, timeout_s), timeout_s + _MARGIN_S
            )
        )


async def _body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise ConfigError(f"the body must be at most {_MAX_BODY_BYTES} bytes long")
    return body


def _answer(reply: Reply) -> Response:
    return raw_json(reply.body, reply.status)
