"""`KubernetesApi` over HTTP, where the API server answers what a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio import client as kubernetes_client

from kvloop.operator.api import KubernetesApi
from kvloop.operator.controllers.base import ObjectId
from kvloop.operator.errors import ApiError
from kvloop.operator.runtime.metrics import Metrics

pytestmark = pytest.mark.integration
WHAT = ObjectId(api_version="v1", kind="ConfigMap", namespace="n", name="c")
POD = ObjectId(api_version="v1", kind="Pod", namespace="n", name="p")
WANTED: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "c", "namespace": "n", "ownerReferences": [{"uid": "1"}]},
    "data": {"a": "1"},
}
Answer = Callable[[web.Request, Any], Any]


@dataclass(slots=True, kw_only=True)
class Seen:
    """Requests in order, and the API that makes them."""

    api: KubernetesApi
    metrics: Metrics
    requests: list[tuple[str, str, Any, dict[str, str]]] = field(default_factory=list)

    def writes(self) -> list[str]:
        """Their methods."""
        return [method for method, *_ in self.requests if method != "GET"]


@asynccontextmanager
async def server(answer: Answer, timeout_s: float = 5.0) -> AsyncIterator[Seen]:
    """`answer` returns (status, body), a body of 200, or seconds to say nothing."""
    metrics = Metrics()

    async def handle(request: web.Request) -> web.Response:
        body = json.loads(await request.text() or "null")
        seen.requests.append((request.method, request.path, body, dict(request.query)))
        found = answer(request, body)
        if isinstance(found, float):
            await asyncio.sleep(found)
            found = {}
        status, text = found if isinstance(found, tuple) else (200, found)
        return web.json_response(text, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configured = kubernetes_client.Configuration()
    configured.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    api = KubernetesApi(configured, timeout_s=timeout_s, metrics=metrics)
    seen = Seen(api=api, metrics=metrics)
    try:
        yield seen
    finally:
        await api.close()
        await runner.cleanup()


def refusal(status: int, message: str = "why") -> tuple[int, dict[str, Any]]:
    """As the API server says it."""
    return status, {"kind": "Status", "message": message, "code": status}


async def test_what_is_not_there_is_none() -> None:
    async with server(lambda *_: refusal(404)) as seen:
        assert await seen.api.get(WHAT) is None


async def test_a_refusal_carries_its_status_and_the_servers_words() -> None:
    async with server(lambda *_: refusal(403, "you may not")) as seen:
        with pytest.raises(ApiError, match=r"GET .*/configmaps/c: you may not \(403\)") as caught:
            await seen.api.get(WHAT)
        assert caught.value.status == 403


async def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    async with server(lambda *_: 30.0, timeout_s=0.2) as seen:
        with pytest.raises(ApiError, match=r"no answer in 0\.2 s") as caught:
            await seen.api.get(WHAT)
        assert caught.value.status is None


async def test_a_server_that_is_not_there_is_an_api_error() -> None:
    configured = kubernetes_client.Configuration()
    configured.host = "http://127.0.0.1:9"
    api = KubernetesApi(configured, timeout_s=5.0)
    with pytest.raises(ApiError) as caught:
        await api.get(WHAT)
    assert caught.value.status is None
    await api.close()


async def test_a_list_comes_page_by_page_and_each_object_knows_its_kind() -> None:
    def answer(request: web.Request, _: Any) -> Any:
        first = "continue" not in request.query
        name = "a" if first else "b"
        return {
            "metadata": {"continue": "more"} if first else {},
            "items": [{"metadata": {"name": name}}],
        }

    async with server(answer) as seen:
        found = await seen.api.list("v1", "ConfigMap", "n", {"x": "1", "y": "2"})
        assert [one["metadata"]["name"] for one in found] == ["a", "b"]
        assert {(one["apiVersion"], one["kind"]) for one in found} == {("v1", "ConfigMap")}
        assert [query["labelSelector"] for *_, query in seen.requests] == ["x=1,y=2"] * 2


def keeping(live: dict[str, Any] | None) -> Answer:
    """An API server that holds one object."""
    held = {"live": live}

    def answer(request: web.Request, body: Any) -> Any:
        if request.method == "PATCH":
            held["live"] = {**body, "metadata": {**body["metadata"], "resourceVersion": "2"}}
        return held["live"] or refusal(404)

    return answer


async def test_apply_makes_what_is_not_there_by_force_and_as_one_manager() -> None:
    async with server(keeping(None)) as seen:
        made = await seen.api.apply(WANTED)
        assert made["data"] == {"a": "1"}
        *_, query = seen.requests[-1]
        assert query == {"fieldManager": "kvloop-operator", "force": "true"}


async def test_apply_sends_nothing_where_all_is_there() -> None:
    async with server(keeping(None)) as seen:
        await seen.api.apply(WANTED)
        await seen.api.apply(WANTED)
        assert seen.writes() == ["PATCH"]


async def test_apply_sends_what_differs_from_the_last_time() -> None:
    async with server(keeping(None)) as seen:
        await seen.api.apply(WANTED)
        await seen.api.apply({**WANTED, "data": {}})
        assert seen.writes() == ["PATCH", "PATCH"]


async def test_apply_leaves_an_object_of_another_owner_alone() -> None:
    theirs = {"metadata": {"name": "c", "resourceVersion": "1"}}
    async with server(keeping(theirs)) as seen:
        with pytest.raises(ApiError, match="ConfigMap n/c is there already and not ours") as caught:
            await seen.api.apply(WANTED)
        assert caught.value.status == 409
        assert seen.writes() == []


async def test_create_of_what_is_there_is_none() -> None:
    async with server(lambda *_: refusal(409)) as seen:
        assert await seen.api.create(WANTED) is None


async def test_delete_removes_only_the_object_that_was_meant() -> None:
    async with server(lambda *_: {}) as seen:
        await seen.api.delete(WHAT, uid="u")
        _, _, body, _ = seen.requests[0]
        assert body["preconditions"] == {"uid": "u"}
        assert body["propagationPolicy"] == "Background"


@pytest.mark.parametrize(("status", "uid"), [(404, None), (404, "u"), (409, "u")])
async def test_delete_of_what_is_gone_is_no_error(status: int, uid: str | None) -> None:
    async with server(lambda *_: refusal(status)) as seen:
        await seen.api.delete(WHAT, uid=uid)


async def test_a_delete_that_is_refused_is_an_error() -> None:
    async with server(lambda *_: refusal(409)) as seen:
        with pytest.raises(ApiError):
            await seen.api.delete(WHAT)


async def test_conditions_of_pods_are_merged_by_type_and_others_by_field() -> None:
    kinds: list[str] = []

    def answer(request: web.Request, _: Any) -> Any:
        kinds.append(request.headers["Content-Type"])
        return {}

    async with server(answer) as seen:
        await seen.api.patch_status(POD, {"conditions": []})
        await seen.api.patch_status(WHAT, {"x": 1})
        assert kinds == [
            "application/strategic-merge-patch+json",
            "application/merge-patch+json",
        ]
        assert [path for _, path, *_ in seen.requests] == [
            "/api/v1/namespaces/n/pods/p/status",
            "/api/v1/namespaces/n/configmaps/c/status",
        ]


async def test_each_call_is_counted_by_verb_resource_and_code() -> None:
    async with server(lambda *_: refusal(404)) as seen:
        await seen.api.get(WHAT)
        value = seen.metrics.registry.get_sample_value(
            "kvloop_operator_api_calls_total",
            {"verb": "get", "resource": "configmaps", "namespace": "n", "code": "404"},
        )
        assert value == 1.0
