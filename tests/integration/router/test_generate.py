"""SGLang's /generate."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def answer(house: Any, tokenizer: Any) -> None:
    house.decode.answer = tokenizer.encode(" a b c d e f", add_special_tokens=False)


def generate(house: Any, **body: Any) -> Any:
    reply = house.router.post("/generate", body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_text_is_answered_with_text_ids_and_meta_info(house: Any) -> None:
    reply = generate(house, text="Count", sampling_params={"temperature": 0})
    assert reply["text"] == " a b c d e f"
    assert reply["output_ids"] == house.decode.answer
    meta = reply["meta_info"]
    sent = house.decode.requests[0]
    assert sent.request_id.startswith(meta["id"])
    assert meta["finish_reason"] == {"type": "stop", "matched": 2}
    assert meta["prompt_tokens"] == len(sent.prompt)
    assert meta["completion_tokens"] == len(house.decode.answer) + 1
    assert meta["cached_tokens"] == 0
    assert meta["kvloop"]["decode_node"] == house.decode.url
    assert sent.sampling.max_tokens == 128


def test_the_requests_own_id_is_kept(house: Any) -> None:
    assert generate(house, text="Count", rid="mine")["meta_info"]["id"] == "mine"
    replies = generate(house, text=["one", "two"], rid="mine")
    assert [reply["meta_info"]["id"] for reply in replies] == ["mine-0", "mine-1"]
    assert all(headers["x-request-id"] == "mine" for headers in house.decode.headers)


def test_a_list_is_answered_with_a_list(house: Any) -> None:
    assert len(generate(house, text=["one"])) == 1
    replies = generate(house, input_ids=[[5], [6, 7]], sampling_params={"max_new_tokens": 3})
    assert [r["meta_info"]["prompt_tokens"] for r in replies] == [1, 2]
    assert replies[0]["meta_info"]["finish_reason"] == {"type": "length", "length": 3}


def test_a_stop_string_is_named_and_kept_on_request(house: Any) -> None:
    cut = generate(house, text="Count", sampling_params={"stop": " c"})
    assert cut["text"] == " a b"
    assert cut["meta_info"]["finish_reason"] == {"type": "stop", "matched": " c"}
    kept = generate(house, text="Count", sampling_params={"stop": " c", "no_stop_trim": True})
    assert kept["text"] == " a b c"


def test_a_stream_repeats_the_text_so_far_and_ends_with_done(house: Any) -> None:
    reply = house.router.post("/generate", {"text": "Count", "stream": True})
    lines = [line[6:] for line in reply.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    events = [json.loads(line) for line in lines[:-1]]
    assert [e["text"] for e in events][:2] == [" a", " a b"]
    assert events[-1]["text"] == " a b c d e f"
    assert events[-1]["meta_info"]["finish_reason"] == {"type": "stop", "matched": 2}
    assert all(e["meta_info"]["finish_reason"] is None for e in events[:-1])


def test_logprobs_are_triples(house: Any) -> None:
    reply = generate(house, text="Count", return_logprob=True, top_logprobs_num=2)
    meta = reply["meta_info"]
    assert meta["output_token_logprobs"][0] == [-0.25, house.decode.answer[0], None]
    assert meta["output_top_logprobs"][0] == [[0, 0, None], [-0.5, 1, None]]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "text"),
        ({"text": "a", "input_ids": [1]}, "text"),
        ({"text": 5}, "text"),
        ({"text": [1]}, "text"),
        ({"input_ids": "a"}, "input_ids"),
        ({"input_ids": [1, -1]}, "input_ids"),
        ({"input_ids": [10**6]}, "input_ids"),
        (
            {"text": "a", "sampling_params": {"max_new_tokens": -1}},
            "sampling_params.max_new_tokens",
        ),
        ({"text": "a", "sampling_params": {"regex": "x"}}, "sampling_params.regex"),
        ({"text": "a", "sampling_params": {"nonsense": 1}}, "sampling_params.nonsense"),
        ({"text": "a", "image_data": "x"}, "image_data"),
        ({"text": "a", "rid": ""}, "rid"),
    ],
)
def test_bad_input_is_named(house: Any, body: Any, param: str) -> None:
    reply = house.router.post("/generate", body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param
