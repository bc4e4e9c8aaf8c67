"""What clients see when nodes refuse, die or are not there, and what nodes see of clients."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx2 as httpx
import openai
import pytest

from kvloop.shared_cache.wire import Refused

pytestmark = pytest.mark.integration

CHAT = {"model": "smollm2", "messages": [{"role": "user", "content": "Hi"}]}
PATH = "/v1/chat/completions"


def refusal(status: int) -> Any:
    refused = Refused(status=status, kind="full", message="no room", retry_after_s=3)
    return lambda request: refused


def test_without_a_decode_node_requests_get_503(routers: Any) -> None:
    router = routers.start(served_model_name="smollm2", decode=("http://127.0.0.1:9",))
    router.wait(lambda: router.service.model.problem is None)
    reply = router.post(PATH, CHAT)
    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "no_decode_node"
    assert int(reply.headers["retry-after"]) >= 1
    ready = router.get("/readyz")
    assert ready.status_code == 503
    assert "http://127.0.0.1:9 does not answer" in ready.json()["missing"][0]
    assert router.get("/healthz").status_code == 200


def test_without_a_prefill_node_decode_is_asked_without_candidates(
    nodes: Any, routers: Any
) -> None:
    decode = nodes.start("decode", answer=[28])
    router = routers.start(decode=(decode.url,)).wait_ready()
    assert router.post(PATH, CHAT).status_code == 200
    assert decode.requests[0].prefills == ()


def test_a_refusal_for_lack_of_room_sends_the_request_elsewhere(nodes: Any, routers: Any) -> None:
    full = nodes.start("decode", refuse=refusal(429))
    free = nodes.start("decode", answer=[28])
    router = routers.start(decode=(full.url, free.url)).wait_ready()
    router.wait(lambda: len(router.service.registry.ready("decode")) == 2)
    for start in range(4):
        body = {"model": "smollm2", "prompt": list(range(start * 40, start * 40 + 40))}
        assert router.post("/v1/completions", body).status_code == 200
    assert full.requests and len(free.requests) == 4
    assert router.metric('kvloop_fallbacks_total{kind="decode_retry"}') == len(full.requests)


def test_when_all_refuse_the_client_learns_why_and_when_to_come_back(house: Any) -> None:
    house.decode.refuse = refusal(429)
    reply = house.router.post(PATH, CHAT)
    assert reply.status_code == 429
    assert reply.json()["error"]["message"] == "no room"
    assert reply.headers["retry-after"] == "3"


def test_a_bad_request_is_not_tried_elsewhere(nodes: Any, routers: Any) -> None:
    one = nodes.start("decode", refuse=refusal(400))
    other = nodes.start("decode", refuse=refusal(400))
    router = routers.start(decode=(one.url, other.url)).wait_ready()
    assert router.post(PATH, CHAT).status_code == 400
    assert len(one.requests) + len(other.requests) == 1


def test_a_node_that_turned_into_another_is_passed_over(nodes: Any, routers: Any) -> None:
    turned = nodes.start("decode", refuse=refusal(409))
    router = routers.start(decode=(turned.url,)).wait_ready()
    assert router.post(PATH, CHAT).status_code == 503


def test_a_node_that_does_not_know_us_is_passed_over(nodes: Any, routers: Any) -> None:
    stranger = nodes.start("decode", secret="other")
    friend = nodes.start("decode", answer=[28])
    router = routers.start(decode=(stranger.url, friend.url)).wait_ready()
    router.wait(lambda: len(router.service.registry.ready("decode")) == 2)
    for start in range(2):
        body = {"model": "smollm2", "prompt": list(range(start * 40, start * 40 + 40))}
        assert router.post("/v1/completions", body).status_code == 200


def test_a_dead_decode_is_passed_over(nodes: Any, routers: Any) -> None:
    dead, alive = nodes.start("decode", answer=[28]), nodes.start("decode", answer=[28])
    router = routers.start(decode=(dead.url, alive.url)).wait_ready()
    router.wait(lambda: len(router.service.registry.ready("decode")) == 2)
    nodes.stop(dead)
    for _ in range(3):
        assert router.post(PATH, CHAT).status_code == 200
    assert len(alive.requests) == 3


def test_a_decode_that_dies_in_mid_answer_gives_502(house: Any, scripts: Any) -> None:
    house.decode.script = scripts["die"]
    reply = house.router.post(PATH, CHAT)
    assert reply.status_code == 502
    assert reply.json()["error"]["code"] == "upstream_died"
    house.decode.script = None
    house.router.wait_ready()
    assert house.router.post(PATH, CHAT).status_code == 200


def test_a_stream_whose_decode_dies_ends_with_an_error_and_no_done(
    house: Any, scripts: Any
) -> None:
    house.decode.script = scripts["die"]
    text = house.router.post(PATH, CHAT | {"stream": True}).text
    assert "[DONE]" not in text
    last = json.loads(text.strip().splitlines()[-1][6:])
    assert last["error"]["code"] == "upstream_died"
    house.router.wait_ready()
    with pytest.raises(openai.APIError, match="went away"):
        list(house.router.openai.chat.completions.create(**CHAT, stream=True))


def test_a_request_has_a_deadline(nodes: Any, routers: Any, scripts: Any) -> None:
    decode = nodes.start("decode", answer=[28], script=scripts["hang"])
    router = routers.start(decode=(decode.url,), request_timeout_s=0.5).wait_ready()
    reply = router.post(PATH, CHAT)
    assert reply.status_code == 504
    assert decode.aborted.wait(10)
    assert decode.requests[0].timeout_s <= 0.5


def test_a_silent_node_that_is_not_heard_of_is_given_up(
    nodes: Any, routers: Any, scripts: Any
) -> None:
    async def gone(node: Any, job: Any, response: Any) -> None:
        node.ready = False
        node.incarnation = "restarted"
        await scripts["hang"](node, job, response)

    decode = nodes.start("decode", answer=[28], script=gone)
    router = routers.start(decode=(decode.url,), stall_timeout_s=0.3).wait_ready()
    assert router.post(PATH, CHAT).status_code == 502


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_stops_the_node(house: Any, scripts: Any, stream: bool) -> None:
    house.decode.script = scripts["hang"]
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{house.router.url}{PATH}", json=CHAT | {"stream": stream}, timeout=0.5)
    assert house.decode.aborted.wait(10)
    house.router.wait(lambda: house.router.metric("kvloop_router_in_flight") == 0)


def test_more_than_max_queued_prompts_get_429(nodes: Any, routers: Any, scripts: Any) -> None:
    decode = nodes.start("decode", answer=[28], script=scripts["hang"])
    router = routers.start(decode=(decode.url,), max_queued=1, request_timeout_s=5).wait_ready()
    waiting = threading.Thread(target=router.post, args=(PATH, CHAT))
    waiting.start()
    router.wait(lambda: router.metric("kvloop_router_in_flight") == 1)
    reply = router.post(PATH, CHAT)
    assert reply.status_code == 429
    assert reply.headers["retry-after"] == "1"
    decode.script = None
    waiting.join()
    assert router.post(PATH, CHAT).status_code == 200


def test_prompts_of_one_request_id_reach_the_node_as_several(house: Any) -> None:
    body = {"model": "smollm2", "prompt": ["a", "b"]}
    for _ in range(2):
        house.router.post("/v1/completions", body, headers={"X-Request-Id": "same"})
    assert len({r.request_id for r in house.decode.requests}) == 4
    assert {h["x-request-id"] for h in house.decode.headers} == {"same"}
