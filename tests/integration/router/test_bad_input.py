"""Bad requests get an error in OpenAI's shape that names the field, and leave nothing behind."""

from __future__ import annotations

from typing import Any

import openai
import pytest

pytestmark = pytest.mark.integration

CHAT = {"model": "smollm2", "messages": [{"role": "user", "content": "Hi"}]}
TEXT = {"model": "smollm2", "prompt": "Hi"}
IMAGE = [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content, **more}]}


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "gpt-9"}, 404, "model"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, 400, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "a"}]}, 400, "messages[0].role"),
        (user(None), 400, "messages[0].content"),
        (user(5), 400, "messages[0].content"),
        (user([]), 400, "messages[0].content"),
        (user(IMAGE), 400, "messages[0].content[0].type"),
        (user("a", tool_calls=[{"id": "1"}]), 400, "messages[0].tool_calls"),
        (user("a", colour="red"), 400, "messages[0].colour"),
        (user("many words " * 3000), 400, "messages"),
        ({"max_tokens": -1}, 400, "max_tokens"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"max_tokens": 1.5}, 400, "max_tokens"),
        ({"max_tokens": 5000}, 400, "messages"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, 400, "max_tokens"),
        ({"temperature": 2.5}, 400, "temperature"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"top_p": 0}, 400, "top_p"),
        ({"top_k": -2}, 400, "top_k"),
        ({"min_p": 1.5}, 400, "min_p"),
        ({"stop": [""]}, 400, "stop"),
        ({"stop": ["a"] * 17}, 400, "stop"),
        ({"stop_token_ids": [10**6]}, 400, "stop_token_ids"),
        ({"repetition_penalty": 0}, 400, "repetition_penalty"),
        ({"top_logprobs": 2}, 400, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options"),
        ({"stream": True, "stream_options": {"oops": 1}}, 400, "stream_options.oops"),
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"tool_choice": "required"}, 400, "tool_choice"),
        ({"functions": [{}]}, 400, "functions"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format"),
        ({"n": 2}, 400, "n"),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias"),
        ({"reasoning_effort": "high"}, 400, "reasoning_effort"),
        ({"kvloop": {"cache": "sometimes"}}, 400, "kvloop.cache"),
        ({"kvloop": {"cash": "on"}}, 400, "kvloop.cash"),
        ({"nonsense": 1}, 400, "nonsense"),
    ],
)
def test_a_bad_chat_is_refused_by_name(
    house: Any, change: dict[str, Any], status: int, param: str
) -> None:
    reply = house.router.post("/v1/chat/completions", CHAT | change)
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert house.decode.requests == []
    assert house.router.metric("kvloop_router_in_flight") == 0
    assert house.router.post("/v1/chat/completions", CHAT).status_code == 200


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": ["a", 5]}, "prompt[1]"),
        ({"prompt": [5, "a"]}, "prompt"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [49152]}, "prompt"),
        ({"prompt": ["a"] * 257}, "prompt"),
        ({"prompt": list(range(2048))}, "prompt"),
        ({"logprobs": 21}, "logprobs"),
        ({"best_of": 2}, "best_of"),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
    ],
)
def test_a_bad_completion_is_refused_by_name(
    house: Any, change: dict[str, Any], param: str
) -> None:
    reply = house.router.post("/v1/completions", TEXT | change)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param
    assert house.decode.requests == []


def test_the_openai_client_raises_its_own_errors(house: Any) -> None:
    client = house.router.openai.chat.completions
    with pytest.raises(openai.NotFoundError) as missing:
        client.create(**{**CHAT, "model": "gpt-9"})
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        client.create(**{**CHAT, **user("many words " * 3000)})
    assert long.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b'"text"', b"\xff\xfe", b'{"model": "smollm2"', b"[" * 50_000]
)
def test_what_is_no_json_object_is_refused(house: Any, body: bytes) -> None:
    reply = house.router.post("/v1/chat/completions", None, content=body)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["code"] == "invalid_json"


def test_a_body_over_the_limit_gets_413_with_and_without_its_length(house: Any) -> None:
    body = b'{"model": "' + b"x" * (10 << 20) + b'"}'
    pieces = (body[start : start + 65536] for start in range(0, len(body), 65536))
    for content in (body, pieces):
        reply = house.router.post("/v1/completions", None, content=content)
        assert reply.status_code == 413, reply.text
        assert reply.json()["error"]["code"] == "request_too_large"
    assert house.router.post("/v1/chat/completions", CHAT).status_code == 200


@pytest.mark.parametrize("name", ["x" * 129, "caf\u00e9", ""])
def test_a_bad_request_id_is_refused(house: Any, name: str) -> None:
    headers = {"X-Request-Id": name.encode("latin-1")}
    reply = house.router.post("/v1/chat/completions", CHAT, headers=headers)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "X-Request-Id"


def test_unknown_paths_and_methods_get_the_same_error_shape(house: Any) -> None:
    assert house.router.get("/v1/nothing").json()["error"]["message"].startswith("Not Found")
    wrong = house.router.get("/v1/completions")
    assert wrong.status_code == 405 and "error" in wrong.json()


def test_harmless_and_neutral_fields_are_accepted(house: Any) -> None:
    neutral = {
        "user": "u",
        "metadata": {"a": "b"},
        "store": False,
        "service_tier": "auto",
        "n": 1,
        "tools": [],
        "tool_choice": "none",
        "logit_bias": {},
        "response_format": {"type": "text"},
        "stop": None,
        "parallel_tool_calls": True,
    }
    assert house.router.post("/v1/chat/completions", CHAT | neutral).status_code == 200
