"""The operator's own probe of the loop, against a server that answers like SGLang's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from sglang_server import PAGE, SGLangServer

from kvloop.operator.clusters.loop import CONDITIONS, LoopSeen, judge_loop
from kvloop.operator.nodes.answers import CanaryReport, LastCanary
from kvloop.operator.probe import run
from kvloop.operator.probe.chat import Turn, say
from kvloop.operator.probe.counters import Counters
from kvloop.operator.probe.judge import judge
from kvloop.operator.probe.run import Target, run_probe
from kvloop.operator.types.pd_cluster import Canary


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_LOOK_AGAIN_S", 0.02)
    monkeypatch.setattr(run, "_UNCOUNTED_S", 0.1)


@asynccontextmanager
async def served(server: SGLangServer) -> AsyncIterator[str]:
    async with TestServer(server.app()) as up:
        yield str(up.make_url("")).rstrip("/")


async def probed(server: SGLangServer, **target: Any) -> CanaryReport:
    async with served(server) as url:
        asked = {"prefills": [url], "decodes": [url], "page_size": PAGE, "model": "m"} | target
        return await run_probe(Target(router=url, **asked), timeout_s=20)


def states(report: CanaryReport) -> dict[str, str]:
    return {stage.stage: stage.state for stage in report.stages}


def conditions(report: CanaryReport) -> dict[str, tuple[str, str]]:
    """Status and reason, as the resource has them."""
    seen = LoopSeen(canaries=[LastCanary(running=False, last=report)])
    loop = judge_loop(seen, Canary(), has_cache=True, now=report.started_at + 1)
    return {CONDITIONS[name]: (one.status, one.reason) for name, one in loop.verdicts.items()}


async def test_a_whole_loop_is_seen_as_whole() -> None:
    report = await probed(SGLangServer())
    assert report.result == "whole" and report.broken_stage is None
    assert states(report) == {"transfer": "ok", "write_back": "ok", "reuse": "ok"}
    assert report.stage("reuse").reason.startswith("4 of 4 pages that decode wrote")
    assert conditions(report) == {
        "TransferVerified": ("True", "Verified"),
        "WriteBackVerified": ("True", "Verified"),
        "ReuseVerified": ("True", "Verified"),
    }


async def test_turn_two_continues_turn_one_and_no_two_probes_are_alike() -> None:
    server = SGLangServer()
    await probed(server)
    first, second = server.bodies
    assert first["max_tokens"] == 4 * PAGE and first["ignore_eos"] is True
    assert first["temperature"] == 0 and first["return_cached_tokens_details"] is True
    assert len(first["messages"][0]["content"].split()) >= 3 * PAGE
    assert second["messages"][0] == first["messages"][0]
    assert second["messages"][1]["role"] == "assistant"
    assert second["messages"][1]["content"].startswith("word0 word1")
    other = SGLangServer()
    await probed(other)
    assert other.bodies[0]["messages"] != first["messages"]


async def test_a_server_that_knows_no_details_is_asked_without_them() -> None:
    server = SGLangServer(refuses_details=True)
    assert (await probed(server)).result == "whole"
    assert len(server.bodies) == 2


async def test_pages_that_turn_two_does_not_find_break_the_loop_at_reuse() -> None:
    report = await probed(SGLangServer(stores=False))
    assert (report.result, report.broken_stage) == ("broken", "write_back")
    assert report.stage("reuse").reason.startswith("0 of 4 pages")
    assert "template" in report.stage("reuse").reason
    assert conditions(report)["ReuseVerified"] == ("False", "CanaryFailed")


async def test_hits_of_other_tiers_are_no_reuse_of_the_shared_cache() -> None:
    report = await probed(SGLangServer(tells_storage=True, from_storage=False))
    assert states(report)["reuse"] == "failed"
    assert "none of them in the shared cache" in report.stage("reuse").reason
    report = await probed(SGLangServer(tells_storage=True))
    assert states(report)["reuse"] == "ok"


async def test_answers_that_tell_no_cached_tokens_leave_reuse_unobservable() -> None:
    report = await probed(SGLangServer(tells_cached=False))
    assert report.result == "unknown"
    assert conditions(report) == {
        "TransferVerified": ("True", "Verified"),
        "WriteBackVerified": ("True", "Verified"),
        "ReuseVerified": ("Unknown", "NotObservable"),
    }


async def test_what_no_node_counts_is_not_observable() -> None:
    report = await probed(
        SGLangServer(counts_transfers=False, counts_backups=False, tells_cached=False)
    )
    assert conditions(report) == dict.fromkeys(CONDITIONS.values(), ("Unknown", "NotObservable"))


async def test_reuse_shows_the_write_back_that_nobody_counts() -> None:
    report = await probed(SGLangServer(counts_backups=False))
    assert states(report)["write_back"] == "ok"
    assert "turn 2 found" in report.stage("write_back").reason


async def test_counters_that_stand_still_break_their_stage() -> None:
    server = SGLangServer(stores=False)
    report = await probed(server)
    assert states(report)["write_back"] == "failed"
    assert "stored no token" in report.stage("write_back").reason
    idle = SGLangServer()
    async with served(idle) as elsewhere:  # nodes that nothing was sent to
        report = await probed(SGLangServer(), prefills=[elsewhere], decodes=[elsewhere])
    assert states(report)["transfer"] == "failed"
    assert "no node counted a transfer" in report.stage("transfer").reason


async def test_a_node_that_cannot_be_asked_leaves_its_counters_unknown() -> None:
    report = await probed(SGLangServer(metrics_status=503, tells_cached=False))
    assert states(report) == {"transfer": "unknown", "write_back": "unknown", "reuse": "unknown"}
    assert "HTTP 503" in report.stage("transfer").reason
    assert conditions(report)["TransferVerified"] == ("Unknown", "NotObserved")


TURN = Turn(text="", prompt_tokens=64, completion_tokens=64, cached_tokens=None)


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (Counters(transfers=3, backed_up=3, faults=("decode: HTTP 503",)), "decode: HTTP 503"),
        (Counters(transfers=900, backed_up=900), "began anew"),
    ],
    ids=["was not asked at first", "was restarted"],
)
def test_sums_that_are_not_of_the_same_nodes_prove_nothing(before: Counters, words: str) -> None:
    after = Counters(transfers=500, backed_up=500)
    stages = judge(TURN, TURN, before, after, page_size=16, has_storage=True)
    assert [stage.state for stage in stages] == ["unknown"] * 3
    assert words in stages[0].reason and words in stages[1].reason
    assert stages[0].is_observable and stages[1].is_observable


async def test_an_answer_in_many_pieces_is_read_to_its_end() -> None:
    async def chat(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse()
        await reply.prepare(request)
        usage = {"prompt_tokens": 5, "completion_tokens": 1}
        body = {"choices": [{"message": {"content": "far"}}], "usage": usage}
        for letter in json.dumps(body):
            await reply.write(letter.encode())
            await asyncio.sleep(0)
        return reply

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    async with TestServer(app) as up, aiohttp.ClientSession() as http:
        url = str(up.make_url("")).rstrip("/")
        turn = await say(http, url, "m", [], max_tokens=1, timeout_s=20)
    assert (turn.text, turn.prompt_tokens) == ("far", 5)


async def test_a_first_turn_that_fails_is_a_broken_transfer_in_the_servers_words() -> None:
    report = await probed(SGLangServer(fails_at=1))
    assert (report.result, report.broken_stage) == ("broken", "transfer")
    assert "KVTransferError: decode is gone" in report.stage("transfer").reason
    assert states(report)["reuse"] == "skipped"


async def test_a_second_turn_that_fails_is_broken_reuse() -> None:
    report = await probed(SGLangServer(fails_at=2))
    assert states(report) == {"transfer": "ok", "write_back": "ok", "reuse": "failed"}
    assert "turn 2 was not answered" in report.stage("reuse").reason


async def test_without_a_shared_cache_only_the_transfer_is_judged() -> None:
    server = SGLangServer(stores=False)
    report = await probed(server, has_storage=False)
    assert states(report) == {"transfer": "ok", "write_back": "skipped", "reuse": "skipped"}
    assert len(server.bodies) == 1
    assert report.result == "unknown"


def test_an_answer_shorter_than_a_page_proves_nothing() -> None:
    first = Turn(text="a", prompt_tokens=32, completion_tokens=3, cached_tokens=0)
    second = Turn(text="b", prompt_tokens=40, completion_tokens=1, cached_tokens=32)
    stages = judge(first, second, Counters(), Counters(), page_size=PAGE, has_storage=True)
    assert (stages[2].state, stages[2].reason) == (
        "unknown",
        "turn 1's answer was shorter than a page",
    )


async def test_nobody_there_is_told() -> None:
    target = Target(router="http://127.0.0.1:9", model="m", page_size=PAGE)
    report = await run_probe(target, timeout_s=5)
    assert report.broken_stage == "transfer"
    assert "http://127.0.0.1:9" in report.stage("transfer").reason


@pytest.mark.parametrize("text", ["[]", "{}", '{"usage": {}}', "no json", '{"usage": 1}'])
async def test_an_answer_that_is_no_chat_is_told(text: str) -> None:
    from aiohttp import web

    app = web.Application()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text)

    app.router.add_post("/v1/chat/completions", answer)
    async with TestServer(app) as up:
        url = str(up.make_url("")).rstrip("/")
        report = await run_probe(Target(router=url, model="m", page_size=PAGE), timeout_s=5)
    assert "no chat completion with usage" in report.stage("transfer").reason
