"""The driver against a real HTTP server on loopback that speaks OpenAI's protocol."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from kvloop.benchmark.api import Target, open_session
from kvloop.benchmark.closed_loop import Driver
from kvloop.benchmark.report import Report
from kvloop.benchmark.stream import BadAnswer
from kvloop.benchmark.workload import Content, Workload

pytestmark = pytest.mark.integration
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """Answers each request with `output_length` ids and remembers what it was asked."""

    def __init__(self) -> None:
        self.prompts: list[list[int]] = []
        self.running = 0
        self.most_running = 0

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.prompts.append(body["prompt"])
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._answer(request, body)
        finally:
            self.running -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        num = body["max_tokens"]
        for token in range(num):
            await asyncio.sleep(0.001)
            await _event(answer, {"choices": [{"text": "t", "token_ids": [token]}]})
        usage = {
            "prompt_tokens": len(body["prompt"]),
            "completion_tokens": num,
            "prompt_tokens_details": {"cached_tokens": len(body["prompt"]) // 2},
        }
        await _event(answer, {"choices": [], "usage": usage})
        await answer.write(b"data: [DONE]\n\n")
        return answer


async def _event(answer: web.StreamResponse, event: dict[str, Any]) -> None:
    await answer.write(b"data: " + json.dumps(event).encode() + b"\n\n")


@asynccontextmanager
async def serving(completions: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/completions", completions)
    app.router.add_post("/v1/chat/completions", completions)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def drive(url: str, workload: Workload, timeout_s: float = 20.0) -> Report:
    target = Target(
        url=url,
        model="m",
        content=workload.content,
        output_length=workload.output_length,
        timeout_s=timeout_s,
    )
    async with open_session() as http:
        driver = Driver(http=http, target=target, workload=workload, on_outcome=lambda _: None)
        return await driver.run()


def load(**changes: Any) -> Workload:
    fields = {"clients": 3, "turns": 3, "request_length": 10, "output_length": 4, "warmup": 0}
    return Workload(**{**fields, **changes})


async def test_each_turn_sends_the_whole_history_and_then_new_tokens() -> None:
    server = Server()
    async with serving(server.completions) as url:
        report = await drive(url, load(clients=1))
    first, second, third = server.prompts
    assert second[: len(first) + 4] == [*first, 0, 1, 2, 3]
    assert third[: len(second) + 4] == [*second, 0, 1, 2, 3]
    assert [len(p) for p in server.prompts] == [10, 24, 38]
    assert [s.reusable_tokens for s in report.samples] == [0, 13, 27]


async def test_every_request_is_counted_once_with_a_gap_for_each_later_token() -> None:
    server = Server()
    async with serving(server.completions) as url:
        report = await drive(url, load())
    assert len(report.samples) == 9 and not report.failures
    assert all(len(sample.itl_s) == 3 for sample in report.samples)
    assert all(s.cached_tokens == s.prompt_tokens // 2 for s in report.samples)


async def test_no_more_requests_than_asked_for_are_in_flight() -> None:
    server = Server()
    async with serving(server.completions) as url:
        await drive(url, load(clients=6, max_in_flight=2))
    assert server.most_running == 2


async def test_warm_up_requests_are_sent_and_not_counted() -> None:
    server = Server()
    async with serving(server.completions) as url:
        report = await drive(url, load(clients=1, turns=1, warmup=2))
    assert len(server.prompts) == 3 and len(report.samples) == 1
    assert server.prompts[0] != server.prompts[2]


async def _refuse(request: web.Request) -> web.StreamResponse:
    return web.json_response({"error": {"message": "full"}}, status=429)


async def _break_off(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    await _event(answer, {"choices": [{"text": "t", "token_ids": [1]}]})
    return answer


async def _cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def _stall(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(5)
    return web.Response()


async def _no_ids(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    await _event(answer, {"choices": [{"text": "t"}], "usage": {"prompt_tokens": 1}})
    await answer.write(b"data: [DONE]\n\n")
    return answer


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (_refuse, "http_429"),
        (_break_off, "truncated"),
        (_cut, "disconnect"),
        (_stall, "timeout"),
        (_no_ids, "no_token_ids"),
    ],
)
async def test_a_failed_request_is_counted_by_kind_and_ends_its_conversation(
    handler: Handler, kind: str
) -> None:
    async with serving(handler) as url:
        report = await drive(url, load(clients=2), timeout_s=0.5)
    assert report.errors == {kind: 2}
    assert report.num_not_sent == 4


async def test_a_server_that_is_not_there_is_a_connect_error() -> None:
    async with serving(_refuse) as url:
        pass
    report = await drive(url, load(clients=1))
    assert report.errors == {"connect": 1}


async def test_a_warm_up_that_fails_stops_the_benchmark() -> None:
    async with serving(_refuse) as url:
        with pytest.raises(BadAnswer, match="full"):
            await drive(url, load(warmup=1))


async def test_text_grows_a_chat_by_question_and_answer() -> None:
    seen: list[list[dict[str, str]]] = []

    async def chat(request: web.Request) -> web.StreamResponse:
        seen.append((await request.json())["messages"])
        answer = web.StreamResponse()
        await answer.prepare(request)
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        await _event(answer, {"choices": [{"delta": {"content": "yes"}}], "usage": usage})
        await answer.write(b"data: [DONE]\n\n")
        return answer

    content: Content = "text"
    async with serving(chat) as url:
        await drive(url, load(clients=1, turns=2, content=content))
    assert [m["role"] for m in seen[1]] == ["user", "assistant", "user"]
    assert seen[1][1]["content"] == "yes"
