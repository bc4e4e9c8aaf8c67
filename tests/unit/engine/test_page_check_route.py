"""The front's side of a look at a canary's pages; the engine is this test's own hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient

from kvloop.engine.messages import CheckPages, Reply
from kvloop.engine.node_config import NodeConfig
from kvloop.engine.page_check_route import PageCheckRoute
from kvloop.engine.replies import error_response
from kvloop.shared_cache.wire import Role

PATH = "/kvloop/verify_pages"
BODY = {"nonce": "n", "tokens": [1] * 32, "look": "exists"}


class Engine:
    def __init__(self) -> None:
        self.asked: list[CheckPages] = []

    async def act(self, make: Callable[[int], CheckPages], timeout_s: float) -> Reply:
        assert timeout_s > 0
        self.asked.append(make(1))
        return Reply(1, b'{"state": "attached"}', 200)


class Front:
    def __init__(self, role: Role = "decode") -> None:
        self.engine, self.refusal = Engine(), None  # type: Engine, Response | None
        app = FastAPI()
        config = NodeConfig(role=role, model="m", page_size=16)
        PageCheckRoute(config, lambda: self.engine, self._refuse).add_to(app)  # type: ignore[arg-type, return-value]
        self.client = TestClient(app)

    def _refuse(self, _request: Request) -> Response | None:
        return self.refusal

    def ask(self, **fields: Any) -> tuple[int, Any]:
        reply = self.client.post(PATH, content=json.dumps({**BODY, **fields}))
        return reply.status_code, reply.json()


@pytest.fixture
def front() -> Front:
    return Front()


def test_a_question_reaches_the_engine_and_its_answer_the_caller(front: Front) -> None:
    assert front.ask() == (200, {"state": "attached"})
    (asked,) = front.engine.asked
    assert (asked.question.nonce, asked.question.look) == ("n", "exists")


def test_a_refused_caller_reaches_nothing(front: Front) -> None:
    front.refusal = error_response(401, "no")
    assert front.ask(tokens="nonsense")[0] == 401
    assert front.engine.asked == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"nonce": ""}, "nonce must have 1 to 64 characters, got 0"),
        ({"nonce": "n" * 65}, "nonce must have 1 to 64 characters, got 65"),
        ({"tokens": [1] * 15}, "tokens must fill 1 to 64 pages of 16, got 15 tokens"),
        ({"tokens": [1] * 16 * 65}, "tokens must fill 1 to 64 pages of 16"),
        ({"tokens": [-1] * 16}, "tokens must be within 0 .. 2**32 - 1"),
        ({"tokens": "x"}, "not a PageQuestion"),
        ({"look": "everything"}, "not a PageQuestion"),
    ],
)
def test_a_wrong_question_names_what_is_wrong(front: Front, fields: Any, words: str) -> None:
    status, body = front.ask(**fields)
    assert status == 400 and words in body["error"]["message"]
    assert front.engine.asked == []


def test_a_body_that_is_too_long_is_refused(front: Front) -> None:
    status, body = front.ask(nonce="n" * (1 << 20))
    assert status == 400 and "at most" in body["error"]["message"]


def test_only_decode_nodes_compare_their_device_pages(front: Front) -> None:
    assert front.ask(look="device")[0] == 200
    status, body = Front("prefill").ask(look="device")
    assert status == 400 and "asked of decode nodes" in body["error"]["message"]
