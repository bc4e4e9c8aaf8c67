"""Calls of nodes and routers: deadlines, keys, errors in words; a small server answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kvloop.operator.errors import NodeError
from kvloop.operator.nodes.client import STORAGE_PATH, NodeClient

STATUS = {"backend": "file", "state": "attached", "last_error": None, "config_digest": "d1"}
REPORT = {
    "result": "broken",
    "broken_stage": "reuse",
    "stages": [{"stage": "reuse", "state": "failed", "reason": "0 of 8 pages", "expected": {}}],
    "pairs": [],
    "notes": [],
    "started_at": 5.0,
    "seconds": 1.5,
    "trigger": "demand",
}


class Node:
    """Answers as it is told; notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.status, self.body = 200, json.dumps(STATUS)
        self.delay_s = 0.0
        self.server: TestServer

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(request)
        self.bodies.append(await request.read())
        await asyncio.sleep(self.delay_s)
        headers = {"Location": "/elsewhere"} if self.status == 302 else {}
        return web.Response(status=self.status, text=self.body, headers=headers)

    @property
    def url(self) -> str:
        return str(self.server.make_url("")).rstrip("/")


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = Node()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", node.handle)
    async with TestServer(app) as server:
        node.server = server
        yield node


@pytest.fixture
async def client() -> AsyncIterator[NodeClient]:
    async with NodeClient(admin_key="the-key", timeout_s=5.0) as client:
        yield client


ADMIN: list[tuple[str, str, Callable[[NodeClient, str], Awaitable[Any]], Any]] = [
    ("GET", STORAGE_PATH, lambda c, url: c.storage_status(url), STATUS),
    ("PUT", STORAGE_PATH, lambda c, url: c.attach(url, {"a": 1}), STATUS),
    ("DELETE", STORAGE_PATH, lambda c, url: c.detach(url), STATUS),
    ("POST", "/canary", lambda c, url: c.run_canary(url), REPORT),
]
PLAIN: list[tuple[str, Callable[[NodeClient, str], Awaitable[Any]], Any]] = [
    ("/readyz", lambda c, url: c.is_ready(url), {}),
    ("/canary", lambda c, url: c.canary_last(url), {"running": False, "last": None}),
    ("/server_info", lambda c, url: c.router_info(url), {"role": "router"}),
    (
        "/server_info",
        lambda c, url: c.server_info(url),
        {"node": {"url": "http://n:1", "role": "decode", "incarnation": "i"}},
    ),
]


@pytest.mark.parametrize(("method", "path", "call", "body"), ADMIN)
async def test_admin_calls_show_the_key(
    node: Node, client: NodeClient, method: str, path: str, call: Any, body: Any
) -> None:
    node.body = json.dumps(body)
    await call(client, node.url)
    (asked,) = node.asked
    assert (asked.method, asked.path) == (method, path)
    assert asked.headers["Authorization"] == "Bearer the-key"


@pytest.mark.parametrize(("path", "call", "body"), PLAIN)
async def test_other_calls_do_not(
    node: Node, client: NodeClient, path: str, call: Any, body: Any
) -> None:
    node.body = json.dumps(body)
    await call(client, node.url)
    (asked,) = node.asked
    assert (asked.method, asked.path) == ("GET", path) and "Authorization" not in asked.headers


async def test_the_status_is_read_and_unknown_fields_are_left_out(
    node: Node, client: NodeClient
) -> None:
    node.body = json.dumps({**STATUS, "epoch": "e", "stats": {"reads": 12, "seconds": 0.5}})
    status = await client.storage_status(node.url + "/")
    assert (status.backend, status.state, status.config_digest) == ("file", "attached", "d1")
    assert status.stats == {"reads": 12.0, "seconds": 0.5}


async def test_attach_sends_the_document_and_detach_the_time_to_drain(
    node: Node, client: NodeClient
) -> None:
    await client.attach(node.url, {"hicache_storage_backend": "file"})
    await client.detach(node.url, drain_s=2.5)
    assert json.loads(node.bodies[0]) == {"hicache_storage_backend": "file"}
    assert node.asked[1].query == {"timeout_s": "2.5"}


async def test_a_canarys_stages_are_read_and_one_that_is_not_told_is_unknown(
    node: Node, client: NodeClient
) -> None:
    node.body = json.dumps({"running": True, "last": REPORT})
    found = await client.canary_last(node.url)
    assert found.running and found.last is not None and found.last.result == "broken"
    assert (found.last.stage("reuse").state, found.last.stage("reuse").reason) == (
        *("failed",),
        "0 of 8 pages",
    )
    assert found.last.stage("transfer").state == "unknown"


async def test_a_router_tells_its_nodes_with_state_and_load(node: Node, client: NodeClient) -> None:
    one = {"url": "http://n:1", "role": "decode", "incarnation": "i", "state": "suspect"}
    node.body = json.dumps(
        {"role": "router", "missing": ["x"], "nodes": [{**one, "load": {"waiting": 3}}]}
    )
    info = await client.router_info(node.url)
    assert info.missing == ["x"]
    assert (info.nodes[0].state, info.nodes[0].load.waiting) == ("suspect", 3)


async def test_prompt_tokens_are_read_of_the_metrics(node: Node, client: NodeClient) -> None:
    node.body = 'kvloop_prompt_tokens_total{source="storage"} 7.0\n'
    assert (await client.prompt_tokens(node.url)).storage == 7


async def test_silence_ends_at_the_deadline_and_is_told(node: Node) -> None:
    node.delay_s = 30.0
    async with NodeClient(timeout_s=0.1) as client:
        with pytest.raises(NodeError, match=r"GET .*/metrics: no answer within 0.1 s") as raised:
            await client.metrics(node.url)
        assert raised.value.status is None
        assert await client.is_ready(node.url) is False


async def test_a_refusal_is_told_with_its_words_and_status(node: Node, client: NodeClient) -> None:
    node.status = 401
    node.body = json.dumps({"error": {"message": "the admin key is missing or wrong", "code": 401}})
    words = r"HTTP 401: the admin key is missing or wrong$"
    with pytest.raises(NodeError, match=words) as raised:
        await client.storage_status(node.url)
    assert raised.value.status == 401


async def test_a_redirect_is_not_followed(node: Node, client: NodeClient) -> None:
    node.status = 302
    with pytest.raises(NodeError, match="HTTP 302"):
        await client.storage_status(node.url)
    assert len(node.asked) == 1


@pytest.mark.parametrize("body", ["no JSON", "[]", '{"backend": 3}', '{"state": "odd"}'])
async def test_an_answer_that_is_none_of_kvloop_is_told(
    node: Node, client: NodeClient, body: str
) -> None:
    node.body = body
    with pytest.raises(NodeError, match="is not as kvloop answers"):
        await client.storage_status(node.url)


async def test_metrics_that_are_none_are_told(node: Node, client: NodeClient) -> None:
    node.body = "<html>not found</html>"
    with pytest.raises(NodeError, match="is no Prometheus text"):
        await client.metrics(node.url)


async def test_an_endless_answer_is_cut_off(
    node: Node, client: NodeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvloop.operator.nodes.client._MAX_BYTES", 1000)
    node.body = "x" * 2000
    with pytest.raises(NodeError, match="longer than 1000 bytes"):
        await client.metrics(node.url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://no-such-host.invalid"])
async def test_an_address_that_nobody_is_at_is_told(client: NodeClient, url: str) -> None:
    with pytest.raises(NodeError, match=url):
        await client.server_info(url)
