"""The router's canary over HTTP: who may ask, and nodes that answer in unexpected ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from kvloop.shared_cache.canary import DevicePage, PageQuestion, PageReply, StoredPage
from kvloop.shared_cache.wire import (
    SECRET_HEADER,
    Finished,
    GenerateRequest,
    PromptSources,
    Tokens,
    encode_line,
)

pytestmark = pytest.mark.integration
PAGE = 16
KEY = {"Authorization": "Bearer operator"}


def reply_to(question: PageQuestion) -> PageReply:
    """Of a node where all is well."""
    count = len(question.tokens) // PAGE
    stored: tuple[StoredPage, ...] = ()
    if question.look == "exists":
        stored = (StoredPage(result="there"),) * count
    elif question.look == "read":
        stored = (StoredPage(result="good", writer="decode"),) * count
    device = (DevicePage(error=0.0, layer=0, is_zero=False),) * count
    return PageReply(
        page_size=PAGE,
        launched_with="file",
        backend="file",
        state="attached",
        stored=stored,
        device=device if question.look == "device" else (),
    )


async def whole_answer(node: Any, job: GenerateRequest, response: web.StreamResponse) -> None:
    """As many tokens as were asked for, one event after the other."""
    await node.start_answer(job, response)
    for _ in range(job.sampling.max_tokens):
        await response.write(encode_line(Tokens(ids=[7])))
    await response.write(
        encode_line(Finished(reason="length", completion_tokens=job.sampling.max_tokens))
    )


def read_from_l3(job: GenerateRequest) -> PromptSources:
    found = (len(job.prompt) - 1) // PAGE * PAGE if job.cache == "l3_only" else 0
    return PromptSources(computed=len(job.prompt) - found, storage=found, storage_by_decode=found)


class Looks:
    """`/kvloop/verify_pages` of a fake node."""

    def __init__(self) -> None:
        self.asked: list[PageQuestion] = []
        self.secrets: list[str | None] = []
        self.answer: Any = None

    async def answer_to(self, request: web.Request) -> web.Response:
        self.secrets.append(request.headers.get(SECRET_HEADER))
        self.asked.append(msgspec.json.decode(await request.read(), type=PageQuestion))
        if self.answer is not None:
            return self.answer()  # type: ignore[no-any-return]
        return web.Response(body=msgspec.json.encode(reply_to(self.asked[-1])))


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture
def router(nodes: Any, routers: Any, looks: Looks, tmp_path: Path) -> Iterator[Any]:
    """One router over nodes whose loop is whole."""
    secret = tmp_path / "secret"
    secret.write_text("between-nodes")
    urls = {}
    for role in ("prefill", "decode"):
        node = nodes.start(
            role, routes=[("/kvloop/verify_pages", looks.answer_to)], secret="between-nodes"
        )
        node.script, node.sources = whole_answer, read_from_l3
        urls[role] = (node.url,)
    started = routers.start(
        **urls, admin_api_key="operator", canary_timeout_s=5.0, node_secret_file=str(secret)
    )
    yield started.wait_ready()


def test_only_the_admin_key_starts_a_canary_and_its_report_needs_none(
    router: Any, routers: Any
) -> None:
    assert router.get("/canary").json() == {"running": False, "last": None}
    assert router.post("/canary", None).status_code == 401
    assert router.post("/canary", None, headers={"Authorization": "Bearer x"}).status_code == 401
    assert routers.start().post("/canary", None, headers=KEY).status_code == 403
    report = router.post("/canary", None, headers=KEY)
    assert report.status_code == 200 and report.json()["result"] == "whole", report.json()
    assert router.get("/canary").json()["last"] == report.json()
    assert router.metric('kvloop_canary_runs_total{result="whole"}') == 1


def test_nodes_are_asked_with_their_secret_and_users_counts_stay_as_they_were(
    router: Any, looks: Looks
) -> None:
    router.post("/canary", None, headers=KEY)
    assert set(looks.secrets) == {"between-nodes"}
    assert router.metric('kvloop_prompt_tokens_total{source="storage"}') == 0
    assert router.service.index.clear() == 0


def test_readiness_does_not_hang_on_the_canary(router: Any, looks: Looks) -> None:
    looks.answer = lambda: web.Response(status=404)
    assert router.post("/canary", None, headers=KEY).json()["result"] == "unknown"
    assert router.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: web.Response(status=404), "HTTP 404"),
        (lambda: web.json_response({"error": {"message": "no"}}, status=401), "HTTP 401: no"),
        (lambda: web.Response(body=b"<html>"), "no PageReply"),
        (lambda: web.Response(body=b'{"page_size": "x"}'), "no PageReply"),
    ],
)
def test_a_look_that_fails_is_told_and_nothing_is_taken_for_ok(
    router: Any, looks: Looks, answer: Any, words: str
) -> None:
    looks.answer = answer
    report = router.post("/canary", None, headers=KEY).json()
    assert [s["state"] for s in report["stages"]] == ["unknown", "unknown", "ok"], report
    assert words in report["stages"][0]["reason"]
