"""Decode nodes that die: the client is told, and the next request goes elsewhere or is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from faults import THREADS, Loop, engine_of, kill_9, open_request, prompt_of, start_loop
from loop_client import complete
from running import Cluster, Running, fetch, wait_for

pytestmark = pytest.mark.integration


@pytest.fixture
def loop(tiny_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    with Cluster(tmp_path_factory.mktemp("decodes"), tiny_models["llama"]) as cluster:
        yield start_loop(cluster, decodes=((), ()))


def body(**fields: Any) -> dict[str, Any]:
    long = {"model": "m", "prompt": prompt_of(50), "max_tokens": 4000, "ignore_eos": True}
    return {**long, "temperature": 0, **fields}


def running_decode(loop: Loop) -> Running:
    """The node that answers a request in flight: its hand-off is done."""
    alive = [node for node in loop.decodes if node.process.poll() is None]
    before = {node.url: num_steps(node) for node in alive}

    def busy() -> Running | None:
        return next((node for node in alive if num_steps(node) > before[node.url] + 3), None)

    node: Running = wait_for("a running request", busy)
    return node


def num_steps(node: Running) -> float:
    return node.metric("kvloop_step_seconds_count")


def test_a_killed_decode_ends_its_answers_with_errors_and_others_take_over(loop: Loop) -> None:
    alone = complete(loop.url, prompt_of(80), 24, cache="off")
    with open_request(loop.url, "/v1/completions", body(stream=True)) as request:
        reply = request.getresponse()
        assert reply.readline().startswith(b"data: ")
        node = running_decode(loop)
        node.kill()
        events = [line for line in reply.read().split(b"\n\n") if line]
    error = json.loads(events[-1].removeprefix(b"data: "))["error"]
    assert error["type"] and "decode node went away" in error["message"]

    for _ in range(3):
        answer = complete(loop.url, prompt_of(80), 24, cache="off")
        assert answer.ids == alone.ids
        assert answer.sources["decode_node"] != node.url

    asked = THREADS.submit(fetch, f"{loop.url}/v1/completions", body())
    other = running_decode(loop)
    other.kill()
    status, reply_body = asked.result(30)
    assert status == 502
    assert "decode node went away" in reply_body["error"]["message"]

    status, reply_body = fetch(f"{loop.url}/v1/completions", body(max_tokens=4))
    assert status == 503
    assert reply_body["error"]["code"] == "no_decode_node"


def test_a_decode_whose_engine_is_killed_ends_whole_and_its_client_is_told(loop: Loop) -> None:
    with open_request(loop.url, "/v1/completions", body(stream=True)) as request:
        reply = request.getresponse()
        assert reply.readline().startswith(b"data: ")
        node = running_decode(loop)
        kill_9(engine_of(node))
        assert b"decode node went away" in reply.read()
    assert node.process.wait(10) == 1
    assert "the engine process ended with status -9" in node.log.read_text()
    assert len(complete(loop.url, prompt_of(80), 24).ids) == 24
