"""Around every request: its id, its log line, its count, and errors in OpenAI's shape."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kvloop.router.errors import ApiError, BadRequest
from kvloop.router.metrics import RouterMetrics
from kvloop.router.replies import error_reply
from kvloop.shared_cache.wire import REQUEST_ID_HEADER

log = logging.getLogger("kvloop.router.access")

_MAX_ID_CHARS = 128
_HEADER = REQUEST_ID_HEADER.lower().encode()
_NO_STATUS = 499
"""Stays if the client goes away before it gets a status."""
_QUIET = frozenset(("/healthz", "/readyz", "/metrics", "/kvloop/heartbeat", "/server_info"))
"""Asked every second by machines: not worth a line."""


class RequestScope:
    """ASGI middleware; `endpoints` bounds the label of the request counter.

    While `is_stopping`, no connection outlives its answer: no request meets one that closes.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: RouterMetrics,
        endpoints: frozenset[str],
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._endpoints = endpoints
        self._is_stopping = is_stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        status = _NO_STATUS

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (_HEADER, request_id.encode())]
                if self._is_stopping():
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        request_id = uuid.uuid4().hex
        try:
            request_id = _given_id(scope) or request_id
            scope.setdefault("state", {})["request_id"] = request_id
            await self._app(scope, receive, send_with_id)
        except ApiError as error:
            await error_reply(error)(scope, receive, send_with_id)
        except Exception:
            log.exception("request %s failed", request_id)
            if status != _NO_STATUS:
                raise
            failure = ApiError(500, "the server had an error; see its log", code="internal_error")
            await error_reply(failure)(scope, receive, send_with_id)
        finally:
            self._note(scope, request_id, status, time.monotonic() - began)

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        path = scope["path"]
        endpoint = path if path in self._endpoints else "other"
        self._metrics.requests.labels(endpoint, str(status)).inc()
        level = logging.DEBUG if path in _QUIET else logging.INFO
        log.log(
            level, "%s %s %d %.3fs id=%s", scope["method"], endpoint, status, seconds, request_id
        )


def check_request_id(value: str, param: str) -> str:
    """Return it; raises BadRequest unless it is 1 to 128 printable ASCII characters."""
    if not 0 < len(value) <= _MAX_ID_CHARS or not (value.isascii() and value.isprintable()):
        message = f"Invalid '{param}': must be 1 to {_MAX_ID_CHARS} printable ASCII characters"
        raise BadRequest(message, param=param)
    return value


def _given_id(scope: Scope) -> str | None:
    values = [value for name, value in scope["headers"] if name == _HEADER]
    return check_request_id(values[0].decode("latin-1"), REQUEST_ID_HEADER) if values else None
