"""Heartbeats, pairing, affinity, keys and secrets of a running router."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytestmark = pytest.mark.integration

CHAT = {"model": "smollm2", "messages": [{"role": "user", "content": "Hi"}]}
PATH = "/v1/chat/completions"


def beat(router: Any, node: Any, **headers: str) -> int:
    body = msgspec.json.encode(node.record())
    reply = router.post("/kvloop/heartbeat", None, content=body, headers=headers)
    return int(reply.status_code)


def test_nodes_register_by_heartbeat_and_expire(
    nodes: Any, routers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = routers.start(node_expiry_s=60)
    decode = nodes.start("decode", answer=[28])
    assert beat(router, decode) == 204
    router.wait_ready()
    assert beat(router, decode) == 204
    assert router.post(PATH, CHAT).status_code == 200
    monkeypatch.setattr(router.service.registry, "_clock", lambda: time.monotonic() + 61)
    assert router.get("/readyz").status_code == 503
    assert router.metric('kvloop_nodes{role="decode",state="lost"}') == 1
    assert router.post(PATH, CHAT).status_code == 503


def test_heartbeats_need_the_node_secret_and_nodes_are_sent_it(
    nodes: Any, routers: Any, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    router = routers.start(node_secret_file=str(secret))
    decode = nodes.start("decode", answer=[28], secret="hush")
    assert beat(router, decode) == 401
    assert beat(router, decode, **{"X-Kvloop-Node-Secret": "wrong"}) == 401
    assert beat(router, decode, **{"X-Kvloop-Node-Secret": "hush"}) == 204
    router.wait_ready()
    assert router.post(PATH, CHAT).status_code == 200
    assert decode.headers[0]["x-kvloop-node-secret"] == "hush"
    assert "hush" not in router.get("/server_info").text


@pytest.mark.parametrize("body", [b"{}", b"nonsense", b'{"url": "file:///etc/passwd"}'])
def test_a_heartbeat_that_is_none_is_refused(routers: Any, body: bytes) -> None:
    router = routers.start()
    assert router.post("/kvloop/heartbeat", None, content=body).status_code == 400


def test_only_prefills_of_decodes_namespace_and_generation_are_named(
    nodes: Any, routers: Any
) -> None:
    good = nodes.start("prefill", generation="2")
    old = nodes.start("prefill", generation="1")
    alien = nodes.start("prefill", generation="2", namespace="bb" * 32)
    decode = nodes.start("decode", answer=[28], generation="2")
    urls = (good.url, old.url, alien.url)
    router = routers.start(prefill=urls, decode=(decode.url,)).wait_ready()
    router.wait(lambda: len(router.service.registry.ready("prefill")) == 3)
    router.post(PATH, CHAT)
    assert [c.incarnation for c in decode.requests[0].prefills] == [good.incarnation]
    assert decode.requests[0].generation == "2"


def test_a_conversation_stays_with_its_decode_and_prefill(nodes: Any, routers: Any) -> None:
    decodes = [nodes.start("decode", answer=list(range(100, 140))) for _ in range(2)]
    prefills = [nodes.start("prefill") for _ in range(2)]
    router = routers.start(
        prefill=tuple(n.url for n in prefills), decode=tuple(n.url for n in decodes)
    ).wait_ready()
    ready = router.service.registry.ready
    router.wait(lambda: len(ready("decode")) == len(ready("prefill")) == 2)
    prompt = list(range(50))
    for _ in range(4):
        body = {"model": "smollm2", "prompt": prompt, "max_tokens": 40, "return_token_ids": True}
        choice = router.post("/v1/completions", body).json()["choices"][0]
        prompt = [*prompt, *choice["token_ids"], 7]
    used = [len(decode.requests) for decode in decodes]
    assert sorted(used) == [0, 4]
    sent = decodes[used.index(4)].requests
    assert len({request.prefills[0].incarnation for request in sent}) == 1
    assert all(len(request.prefills) == 2 for request in sent)


def test_new_conversations_are_spread(nodes: Any, routers: Any) -> None:
    decodes = [nodes.start("decode", answer=[28]) for _ in range(2)]
    router = routers.start(decode=tuple(n.url for n in decodes)).wait_ready()
    router.wait(lambda: len(router.service.registry.ready("decode")) == 2)
    for start in range(4):
        body = {"model": "smollm2", "prompt": list(range(start * 40, start * 40 + 40))}
        router.post("/v1/completions", body)
    assert [len(decode.requests) for decode in decodes] == [2, 2]


def test_api_keys_are_asked_for_and_name_the_tenant(
    nodes: Any, routers: Any, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# key tenant\nk1 alpha\nk2 beta\n")
    decode = nodes.start("decode", answer=[28])
    router = routers.start(decode=(decode.url,), api_keys=str(keys)).wait_ready()
    for headers in ({}, {"Authorization": "Bearer nope"}, {"Authorization": "Basic k1"}):
        reply = router.post(PATH, CHAT, headers=headers)
        assert reply.status_code == 401
        assert reply.json()["error"]["code"] == "invalid_api_key"
    assert router.get("/v1/models").status_code == 401
    for key in ("k1", "k2", "k1"):
        router.post(PATH, CHAT, headers={"Authorization": f"Bearer {key}"})
    seeds = [request.cache_seed for request in decode.requests]
    assert seeds[0] == seeds[2] != seeds[1]
    assert all(seeds)


def test_flushing_needs_the_admin_key(nodes: Any, routers: Any) -> None:
    decode = nodes.start("decode", answer=[28])
    router = routers.start(decode=(decode.url,), admin_api_key="boss").wait_ready()
    router.post(PATH, CHAT)
    assert router.post("/flush_cache", None).status_code == 401
    reply = router.post("/flush_cache", None, headers={"Authorization": "Bearer boss"})
    assert reply.json()["history"] == 1
    assert routers.start().post("/flush_cache", None).status_code == 403


def test_the_tokenizer_comes_from_the_first_ready_node(
    nodes: Any, routers: Any, tokenizer_dir: Path
) -> None:
    decode = nodes.start("decode", answer=[28], model_path=str(tokenizer_dir), model="tiny")
    router = routers.start(model=None, decode=(decode.url,)).wait_ready()
    assert router.post(PATH, CHAT | {"model": "tiny"}).status_code == 200


def test_a_model_path_that_is_not_here_is_named_in_readyz(nodes: Any, routers: Any) -> None:
    decode = nodes.start("decode", answer=[28], model_path="/nowhere/at/all")
    router = routers.start(model=None, decode=(decode.url,))
    router.wait(lambda: "/nowhere/at/all" in router.get("/readyz").text)
    assert router.post(PATH, CHAT).status_code == 503


def test_a_node_in_the_wrong_role_is_named_in_readyz(nodes: Any, routers: Any) -> None:
    prefill = nodes.start("prefill")
    router = routers.start(decode=(prefill.url,))
    router.wait(lambda: "is a prefill node" in router.get("/readyz").text)
