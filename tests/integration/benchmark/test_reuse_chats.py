"""Chats against a real HTTP server on loopback: text is sent, in the order that was asked for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from kvloop.benchmark.driver.api import open_session
from kvloop.benchmark.driver.target import Target
from kvloop.benchmark.reuse.hold import Chats
from kvloop.benchmark.reuse.load import ChatLoad

pytestmark = pytest.mark.integration


class Server:
    """Answers each chat with three tokens; refuses those whose words are in `refused`."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.refused = "\0"
        self.running = self.most_running = 0

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        if self.refused in body["messages"][-1]["content"]:
            return web.json_response({"error": {"message": "no"}}, status=500)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        first = {"delta": {"role": "assistant"}, "prompt_token_ids": [1, 2, 3, 4]}
        tokens = [{"delta": {"content": f"w{i} "}, "token_ids": [i]} for i in range(3)]
        for choice in (first, *tokens):
            await _event(answer, {"choices": [choice]})
        kvloop = {"computed": 4, "by_writer": {"prefill": 0, "decode": 0}}
        usage = {"prompt_tokens": 4, "completion_tokens": 3, "kvloop": kvloop}
        await _event(answer, {"choices": [], "usage": usage})
        self.running -= 1
        await answer.write(b"data: [DONE]\n\n")
        return answer


async def _event(answer: web.StreamResponse, event: dict[str, Any]) -> None:
    await answer.write(b"data: " + json.dumps(event).encode() + b"\n\n")


@asynccontextmanager
async def holding(server: Server, load: ChatLoad, said: list[str]) -> AsyncIterator[Chats]:
    """Chats with a served server; each `settle` is noted in `said`, between the messages."""
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.chat)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]

    async def settle() -> None:
        said.append(f"settled after {len(server.bodies)}")

    target = Target(url=f"http://{host}:{port}", model="m", content="text")
    async with open_session() as http:
        yield Chats(http=http, target=target, load=load, settle=settle, timeout_s=30)
    await runner.cleanup()


async def test_a_turn_sends_all_that_was_said_before_as_text_and_no_ids() -> None:
    server, load = Server(), ChatLoad(chats=1, turns=3)
    async with holding(server, load, []) as chats:
        await chats.hold()
    last = server.bodies[-1]
    said = [load.say(1, turn) for turn in (1, 2, 3)]
    texts = [said[0], "w0 w1 w2 ", said[1], "w0 w1 w2 ", said[2]]
    assert [message["content"] for message in last["messages"]] == texts
    assert not {"prompt", "input_ids"} & set(last)
    assert (last["temperature"], last["seed"]) == (1.0, load.body(1, 3)["seed"])
    assert [turn.turn for turn in chats.turns] == [1, 2, 3]
    assert chats.turns[0].prompt_ids == [1, 2, 3, 4] and chats.turns[0].answer_ids == [0, 1, 2]


async def test_rounds_let_every_chat_have_its_turn_and_settle_between() -> None:
    server, said = Server(), list[str]()
    load = ChatLoad(chats=4, turns=3, pace="rounds", at_once=2)
    async with holding(server, load, said) as chats:
        await chats.hold()
    assert said == ["settled after 4", "settled after 8"]
    assert server.most_running <= 2
    assert len(chats.turns) == 12 and chats.duration_s > 0


async def test_at_once_nobody_waits_for_the_others() -> None:
    server, said = Server(), list[str]()
    async with holding(server, ChatLoad(chats=3, turns=2, at_once=1), said) as chats:
        await chats.hold()
    assert said == []
    assert [(turn.chat, turn.turn) for turn in chats.turns] == [
        (chat, turn) for chat in (1, 2, 3) for turn in (1, 2)
    ]


@pytest.mark.parametrize("pace", ["at_once", "rounds"])
async def test_a_failed_turn_is_noted_and_ends_its_chat_alone(pace: Any) -> None:
    server = Server()
    server.refused = "Chat 2, part 2"
    seen: list[object] = []
    async with holding(server, ChatLoad(chats=3, turns=3, pace=pace), []) as chats:
        chats.on_outcome = seen.append
        await chats.hold()
    (failure,) = chats.failures
    assert (failure.conversation, failure.turn, failure.kind) == (2, 2, "http_500")
    assert len(chats.turns) == 7 and len(seen) == 8
