"""What the canary reads of a decode node's /server_info: why it gave up on a prefill node."""

from __future__ import annotations

from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from canary_nodes import node

from kvloop.router.canary.judge import HandOffFailure
from kvloop.router.canary.probe import Probe
from kvloop.router.upstream import Upstream


async def failure_in(info: Any) -> HandOffFailure | None:
    """Of request "mine" on a node whose /server_info is this."""

    async def tell(_request: web.Request) -> web.Response:
        return web.json_response(info)

    app = web.Application()
    app.router.add_get("/server_info", tell)
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        probe = Probe(session, cast(Upstream, None), None)
        return await probe.hand_off_failure(node("decode", url=str(server.make_url(""))), "mine")


def failed(request_id: str, reason: str, **more: Any) -> dict[str, Any]:
    return {"request_id": request_id, "prefill_node": "http://p", "reason": reason, **more}


async def test_the_last_failure_of_the_request_itself_is_told() -> None:
    failures = [failed("mine", "first"), failed("mine", "last"), failed("another", "not mine")]
    assert await failure_in({"hand_off_failures": failures}) == HandOffFailure("last")


@pytest.mark.parametrize(("status", "is_busy"), [(429, True), (409, False), (None, False)])
async def test_a_refusal_for_want_of_room_is_told_apart(status: Any, is_busy: bool) -> None:
    found = await failure_in({"hand_off_failures": [failed("mine", "refused", status=status)]})
    assert found == HandOffFailure("refused", is_busy)


@pytest.mark.parametrize(
    "info", [{}, [], {"hand_off_failures": []}, {"hand_off_failures": [{"request_id": "mine"}]}]
)
async def test_a_node_that_does_not_tell_is_no_error(info: Any) -> None:
    assert await failure_in(info) is None
