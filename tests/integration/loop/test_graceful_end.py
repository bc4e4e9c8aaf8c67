"""What is told to stop while requests run: none is lost."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import pytest
from faults import Loop, open_request, start_loop
from hicache_loop import ids_of, support_cluster
from running import Cluster, Running, fetch, wait_for

pytestmark = pytest.mark.integration
LONG = 600
"""Tokens of an answer that is still under way when a process is told to stop."""
POOL = ("--max-total-tokens", "16384", "--context-length", "2048")


@pytest.fixture
def cluster(model: str, tmp_path: Path) -> Iterator[Cluster]:
    with support_cluster(tmp_path, model) as made:
        made.file_cache()
        yield made


def body_of(seed: int, max_tokens: int = LONG) -> dict[str, object]:
    """A long answer is streamed, another is not."""
    is_long = max_tokens == LONG
    return {
        "model": "m",
        "prompt": ids_of(20, f"chat {seed}"),
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": is_long,
        **({"stream_options": {"include_usage": True}} if is_long else {}),
    }


def begun(reply: HTTPResponse) -> None:
    """Wait for the first of its tokens."""
    assert reply.status == 200, reply.read()
    assert reply.readline().startswith(b"data: ")


def num_tokens(reply: HTTPResponse) -> int:
    """Of an answer that came to its end."""
    lines = [line for line in reply.read().decode().splitlines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]", lines[-2:]
    return int(json.loads(lines[-2].removeprefix("data: "))["usage"]["completion_tokens"])


def running_decode(loop: Loop) -> Running:
    """The one with a request."""
    busy = [one for one in loop.decodes if one.info()["node"]["load"]["running"]]
    return busy[0] if busy else loop.decodes[0]


def test_a_decode_node_finishes_its_answers_and_others_take_what_is_new(cluster: Cluster) -> None:
    ends = (*POOL, "--finish-timeout-s", "120")
    loop = start_loop(cluster, prefills=(POOL,), decodes=(ends, ends))
    with open_request(cluster.url, "/v1/completions", body_of(1)) as connection:
        reply = connection.getresponse()
        begun(reply)
        going = wait_for("a busy decode", lambda: running_decode(loop))
        going.process.send_signal(signal.SIGTERM)
        for _ in range(8):
            status, answer = fetch(f"{cluster.url}/v1/completions", body_of(2, max_tokens=4))
            assert status == 200, answer
        assert num_tokens(reply) == LONG
    assert going.process.wait(90) in (0, -signal.SIGTERM)


def test_a_router_answers_what_comes_until_balancers_know_and_keeps_no_connection(
    cluster: Cluster,
) -> None:
    loop = start_loop(
        cluster,
        prefills=(POOL,),
        decodes=(POOL,),
        router=("--settle-s", "4", "--finish-timeout-s", "120"),
    )
    router = next(one for one in cluster.started if one.port == cluster.router_port)
    assert loop.decodes
    with open_request(cluster.url, "/v1/completions", body_of(3)) as connection:
        reply = connection.getresponse()
        begun(reply)
        router.process.send_signal(signal.SIGTERM)
        wait_for("not ready", lambda: fetch(f"{cluster.url}/readyz")[0] == 503)
        with open_request(cluster.url, "/v1/completions", body_of(4, 2)) as late:
            answer = late.getresponse()
            assert answer.status == 200, answer.read()
            assert answer.headers["Connection"] == "close"
        assert num_tokens(reply) == LONG
    assert router.process.wait(60) in (0, -signal.SIGTERM)
