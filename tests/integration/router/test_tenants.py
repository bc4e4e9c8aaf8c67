"""The key names the tenant; nothing a client writes does, and tenants share no memory here."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.integration

A, B = ({"Authorization": f"Bearer key-{name}"} for name in ("a", "b"))
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": ["Hi", "Ho"]},
    "/generate": {"text": ["Hi", "Ho"]},
}


@pytest.mark.parametrize("path", BODIES)
def test_tenant_and_priority_reach_the_node_with_every_prompt(tenant_house: Any, path: str) -> None:
    router, decode = tenant_house.router, tenant_house.decode
    for headers, priority in ((A, 7), (B, -100), (A, None)):
        reply = router.post(path, BODIES[path] | {"priority": priority}, headers=headers)
        assert reply.status_code == 200, reply.text
    number = len(decode.requests) // 3
    sent = [(request.tenant, request.priority) for request in decode.requests[::number]]
    assert sent == [("alpha", 7), ("beta", -100), ("alpha", 0)]
    assert [(r.tenant, r.priority) for r in decode.requests[number - 1 :: number]] == sent


@pytest.mark.parametrize("path", BODIES)
def test_without_keys_nobody_is_a_tenant(house: Any, path: str) -> None:
    house.router.post(path, BODIES[path], headers=A | {"X-Tenant": "alpha"})
    assert {(r.tenant, r.cache_seed) for r in house.decode.requests} == {("", None)}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("priority", [101, -101, 1.5, "7", True, [1]])
def test_a_priority_that_is_no_whole_number_in_range_is_named(
    tenant_house: Any, path: str, priority: Any
) -> None:
    router, decode = tenant_house.router, tenant_house.decode
    reply = router.post(path, BODIES[path] | {"priority": priority}, headers=A)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "priority"
    assert decode.requests == []


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("field", ["tenant", "cache_seed", "namespace", "api_key"])
def test_a_body_cannot_name_a_tenant(tenant_house: Any, path: str, field: str) -> None:
    router, decode = tenant_house.router, tenant_house.decode
    reply = router.post(path, BODIES[path] | {field: "alpha"}, headers=B)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, field)
    assert decode.requests == []


def test_no_header_but_the_key_names_the_tenant(tenant_house: Any) -> None:
    router, decode = tenant_house.router, tenant_house.decode
    path = "/v1/completions"
    plain = router.post(path, BODIES[path], headers=B)
    for name in ("X-Tenant", "X-Tenant-Id", "X-Kvloop-Tenant", "X-Api-Key", "OpenAI-Organization"):
        assert router.post(path, BODIES[path], headers=B | {name: "alpha"}).status_code == 200
    assert plain.status_code == 200
    assert len({(r.tenant, r.cache_seed) for r in decode.requests}) == 1
    assert decode.requests[0].tenant == "beta"


def test_no_salt_makes_one_tenants_pages_anothers(tenant_house: Any) -> None:
    router, decode = tenant_house.router, tenant_house.decode
    path = "/v1/completions"
    router.post(path, BODIES[path], headers=A)
    own = decode.requests[0].cache_seed
    alpha = b"\x01" + (5).to_bytes(8, "little") + b"alpha"
    salts = (
        "alpha",
        "",
        own,
        "\x00",
        (alpha + b"\x00").decode("latin-1"),
        "sglang-cache-namespace-v1",
    )
    for salt in salts:
        reply = router.post(path, BODIES[path] | {"cache_salt": salt}, headers=B)
        assert reply.status_code == 200, reply.text
    others = [request.cache_seed for request in decode.requests[2::2]]
    assert len(others) == len(salts) and own not in others


def test_a_chats_history_is_its_own_tenants_only(tenant_house: Any, tokenizer: Any) -> None:
    router, decode = tenant_house.router, tenant_house.decode
    # the same text as other ids: only the memory of the answer knows these
    decode.answer = [tokenizer.encode(c, add_special_tokens=False)[0] for c in "abcdef"]
    assert decode.answer != tokenizer.encode("abcdef", add_special_tokens=False)
    path = "/v1/chat/completions"
    first = router.post(path, BODIES[path], headers=A).json()
    text = first["choices"][0]["message"]["content"]
    said = {"role": "assistant", "content": text}
    body = {"messages": [*BODIES[path]["messages"], said, {"role": "user", "content": "And?"}]}
    for headers in (A, B):
        assert router.post(path, body, headers=headers).status_code == 200
    _, own, foreign = decode.requests
    assert json.dumps(decode.answer)[1:-1] in json.dumps(own.prompt)
    plain = tokenizer.encode(tokenizer.render(body["messages"], {}), add_special_tokens=False)
    assert foreign.prompt == plain != own.prompt
