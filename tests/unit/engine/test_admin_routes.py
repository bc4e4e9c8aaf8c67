"""The front's side of the admin API; the engine is this test's own hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient

from kvloop.engine.messages import AttachStorage, ClearStorage, DetachStorage, Reply, StorageAction
from kvloop.engine.replies import error_response
from kvloop.engine.storage_routes import StorageRoutes

PATH = "/hicache/storage-backend"


class Engine:
    def __init__(self) -> None:
        self.asked: list[tuple[StorageAction, float]] = []
        self.reply = Reply(1, b'{"state": "attached"}')

    async def call(self, name: str) -> bytes:
        assert name == "storage_status"
        return b'{"state": "detached"}'

    async def act(self, make: Callable[[int], StorageAction], timeout_s: float) -> Reply:
        self.asked.append((make(1), timeout_s))
        return self.reply


class Front:
    def __init__(self) -> None:
        self.engine = Engine()
        self.refusal: Response | None = None
        app = FastAPI()
        routes = StorageRoutes("prefill", lambda: self.engine, self._refuse)  # type: ignore[arg-type, return-value]
        routes.add_to(app)
        self.client = TestClient(app)

    def _refuse(self, _request: Request) -> Response | None:
        return self.refusal

    def ask(self, method: str, path: str = PATH, body: Any = None) -> tuple[int, Any]:
        content = None if body is None else json.dumps(body)
        reply = self.client.request(method, path, content=content)
        return reply.status_code, reply.json()


@pytest.fixture
def front() -> Front:
    return Front()


CALLS = [("GET", PATH), ("PUT", PATH), ("DELETE", PATH), ("POST", f"{PATH}/clear")]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_a_refused_caller_reaches_nothing(front: Front, method: str, path: str) -> None:
    front.refusal = error_response(401, "no")
    assert front.ask(method, path, {"nonsense": 1})[0] == 401
    assert front.engine.asked == []


def test_put_passes_the_change_on_and_answers_as_the_engine(front: Front) -> None:
    front.engine.reply = Reply(1, b'{"error": {"code": 409}}', 409)
    answer = front.ask("PUT", body={"hicache_write_policy": "write_back"})
    assert answer == (409, {"error": {"code": 409}})
    ((action, _),) = front.engine.asked
    assert isinstance(action, AttachStorage) and action.change.write_policy == "write_back"


def test_a_wrong_body_is_400_and_never_reaches_the_engine(front: Front) -> None:
    status, body = front.ask("PUT", body={"hicache_write_policy": "x"})
    assert status == 400 and "hicache_write_policy" in body["error"]["message"]
    assert front.engine.asked == []


def test_a_body_that_is_too_long_is_refused(front: Front) -> None:
    status, body = front.ask("PUT", body={"hicache_storage_backend": "x" * 70_000})
    assert status == 400 and "at most 65536 bytes" in body["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "default"), [("DELETE", PATH, 5.0), ("POST", f"{PATH}/clear", 30.0)]
)
def test_the_engine_is_given_longer_than_the_drain(
    front: Front, method: str, path: str, default: float
) -> None:
    front.ask(method, path)
    front.ask(method, f"{path}?timeout_s=60")
    for (action, allowed_s), wanted in zip(front.engine.asked, (default, 60.0), strict=True):
        assert isinstance(action, DetachStorage | ClearStorage)
        assert action.timeout_s == wanted and allowed_s > wanted


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "601", "soon", ""])
@pytest.mark.parametrize(("method", "path"), [CALLS[2], CALLS[3]])
def test_a_timeout_that_cannot_be_is_named(
    front: Front, method: str, path: str, value: str
) -> None:
    status, body = front.ask(method, f"{path}?timeout_s={value}")
    assert status == 400 and "timeout_s must be a number of seconds" in body["error"]["message"]
    assert front.engine.asked == []


def test_an_unknown_parameter_is_named(front: Front) -> None:
    status, body = front.ask("DELETE", f"{PATH}?timeout=3")
    assert status == 400 and "unknown parameter 'timeout'" in body["error"]["message"]


def test_status_is_the_engines(front: Front) -> None:
    assert front.ask("GET") == (200, {"state": "detached"})
