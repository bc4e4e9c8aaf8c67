from typing import Any

import pytest

from kvloop.router.metrics import RouterMetrics
from kvloop.router.scope import RequestScope


async def _headers(is_stopping: bool) -> dict[bytes, bytes]:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = RequestScope(app, RouterMetrics(), frozenset(), lambda: is_stopping)
    asked = {"type": "http", "path": "/", "method": "GET", "headers": []}
    await scope(asked, None, send)  # type: ignore[arg-type]
    return dict(sent[0]["headers"])


@pytest.mark.parametrize("is_stopping", [True, False])
async def test_a_stopping_router_keeps_no_connection(is_stopping: bool) -> None:
    assert (b"connection" in await _headers(is_stopping)) is is_stopping
