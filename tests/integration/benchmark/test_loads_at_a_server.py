"""What arrives at a server when the synthetic loads are driven against it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest
from aiohttp import web

from kvloop.benchmark.arms import Segment
from kvloop.benchmark.driver.api import open_session
from kvloop.benchmark.driver.drive import drive
from kvloop.benchmark.driver.driven import Driven
from kvloop.benchmark.driver.options import DriveOptions
from kvloop.benchmark.driver.target import Target
from kvloop.benchmark.workloads.agent import Agent
from kvloop.benchmark.workloads.long_doc import LongDocument
from kvloop.benchmark.workloads.multi_turn import MultiTurn
from kvloop.benchmark.workloads.plan import Workload, num_requests

pytestmark = pytest.mark.integration
FAR_APART = (0, 1 << 40)
"""Drawn from here, no two ids are equal by chance."""


class Server:
    """Answers with ids that it never gave before, and remembers prompts with their answers."""

    def __init__(self) -> None:
        self.url = ""
        self.heard: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self.chats: list[list[dict[str, str]]] = []
        self._next = count(1 << 41)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        answer = tuple(next(self._next) for _ in range(body["max_tokens"]))
        self.heard.append((tuple(body["prompt"]), answer))
        choices = [{"text": "t", "token_ids": [one]} for one in answer]
        return await _stream(request, choices, len(body["prompt"]))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.chats.append(body["messages"])
        said = f"answer {next(self._next)}"
        return await _stream(request, [{"delta": {"content": said}}], body["max_tokens"])


async def _stream(
    request: web.Request, choices: list[dict[str, Any]], prompt_tokens: int
) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(choices)}
    for event in [*({"choices": [one]} for one in choices), {"choices": [], "usage": usage}]:
        await answer.write(b"data: " + json.dumps(event).encode() + b"\n\n")
    await answer.write(b"data: [DONE]\n\n")
    return answer


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    app = web.Application()
    app.router.add_post("/v1/completions", server.completions)
    app.router.add_post("/v1/chat/completions", server.chat)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = site.name.rstrip("/")
    try:
        yield server
    finally:
        await runner.cleanup()


async def hold(server: Server, load: Workload) -> Driven:
    """All conversations in one segment, without a warm-up."""
    every = tuple(range(len(load.conversations)))
    segment = Segment(arm="on", step=0, round=0, conversations=every, salt="s")
    target = Target(url=server.url, model="m", content=load.content)
    async with open_session() as http:
        driven = await drive(http, target, load, [segment], DriveOptions(warmup=0, timeout_s=60))
    assert not driven.failures and len(driven.samples) == num_requests(load)
    return driven


def count_reuse(heard: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> tuple[int, int]:
    """Prompt tokens as they came, and how many an endless cache of single tokens had."""
    cached: set[tuple[int, ...]] = {()}
    tokens = reused = 0
    for prompt, answer in heard:
        tokens += len(prompt)
        reused += max(n for n in range(len(prompt) + 1) if prompt[:n] in cached)
        with_kv = (prompt + answer)[:-1]
        cached.update(with_kv[:n] for n in range(len(with_kv) + 1))
    return tokens, reused


@pytest.mark.parametrize(
    "load",
    [
        MultiTurn(
            num_conversations=3,
            turns=(3, 5),
            request_length=(4, 9),
            output_length=(2, 5),
            system_prompts=2,
            system_length=6,
            branches=2,
            branch_turn=2,
            think_s=(0.0, 0.01),
            id_range=FAR_APART,
        ),
        LongDocument(documents=2, document_length=20, questions=3, id_range=FAR_APART),
        LongDocument(documents=2, document_length=20, asked="apart", id_range=FAR_APART),
        Agent(
            agents=3,
            steps=(3, 5),
            tools_length=12,
            task_length=4,
            result_length=(2, 9),
            output_length=(2, 5),
            tool_s=0.005,
            subagents=2,
            subagent_step=2,
            id_range=FAR_APART,
        ),
    ],
    ids=["multi-turn", "long-doc", "long-doc apart", "agent"],
)
async def test_what_a_server_could_reuse_of_what_arrives_is_the_ceiling(
    server: Server, load: MultiTurn | LongDocument | Agent
) -> None:
    await hold(server, load)
    assert load.ceiling is not None
    ceiling = (load.ceiling.tokens, load.ceiling.reusable_tokens)
    assert count_reuse(server.heard) == ceiling
    longest = max(len(prompt) + len(answer) for prompt, answer in server.heard)
    assert longest == load.context_needed


async def test_a_branch_goes_on_from_the_very_answer_that_its_parent_got(server: Server) -> None:
    load = MultiTurn(
        content="text", num_conversations=1, turns=3, branches=1, branch_turn=1, system_prompts=1
    )
    await hold(server, load)
    firsts = [chat for chat in server.chats if len(chat) == 2]
    seconds = [chat for chat in server.chats if len(chat) == 4]
    assert len(firsts) == 1 and len(seconds) == 2
    roles = ["system", "user", "assistant", "user"]
    assert all([message["role"] for message in chat] == roles for chat in seconds)
    assert seconds[0][:3] == seconds[1][:3] and seconds[0][:2] == firsts[0]
    assert seconds[0][3] != seconds[1][3]


async def test_the_result_of_a_tool_follows_the_answer_that_called_it(server: Server) -> None:
    load = Agent(content="text", agents=1, steps=3, tool_role="tool")
    await hold(server, load)
    roles = [message["role"] for message in server.chats[-1]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "tool"]


async def test_a_tool_takes_its_time(server: Server) -> None:
    driven = await hold(server, Agent(agents=1, steps=2, tool_s=(0.05, 0.06)))
    first, second = sorted(driven.samples, key=lambda sample: sample.turn)
    assert second.sent_at - first.ended_at >= 0.05
