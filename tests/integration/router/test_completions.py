"""Text completions through the real OpenAI client."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.integration


def complete(house: Any, prompt: Any, **options: Any) -> Any:
    return house.router.openai.completions.create(model="smollm2", prompt=prompt, **options)


@pytest.fixture(autouse=True)
def answer(house: Any, tokenizer: Any) -> None:
    house.decode.answer = tokenizer.encode(" a b c d e f", add_special_tokens=False)


def test_a_text_prompt_gets_sixteen_tokens_at_most(house: Any, tokenizer: Any) -> None:
    reply = complete(house, "Count")
    assert reply.choices[0].text == " a b c d e f"
    sent = house.decode.requests[0]
    assert sent.prompt == tokenizer.encode("Count", add_special_tokens=True)
    assert sent.sampling.max_tokens == 16


def test_a_short_limit_ends_with_length(house: Any) -> None:
    reply = complete(house, "Count", max_tokens=2)
    assert reply.choices[0].finish_reason == "length"
    assert reply.choices[0].text == " a b"
    assert reply.usage.completion_tokens == 2


def test_token_ids_are_a_prompt_as_they_are(house: Any) -> None:
    complete(house, [5, 6, 7])
    assert house.decode.requests[0].prompt == [5, 6, 7]


@pytest.mark.parametrize("prompts", [["one", "two words", "3"], [[5], [6, 7], [8, 9, 10]]])
def test_several_prompts_are_answered_in_their_places(house: Any, prompts: Any) -> None:
    reply = complete(house, prompts)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert reply.usage.prompt_tokens == sum(len(r.prompt) for r in house.decode.requests)
    assert reply.usage.completion_tokens == 3 * (len(house.decode.answer) + 1)
    assert reply.usage.kvloop["computed"] == reply.usage.prompt_tokens
    assert len({request.request_id for request in house.decode.requests}) == 3


def test_several_streamed_prompts_are_told_apart_by_index(house: Any) -> None:
    options = {"include_usage": True}
    chunks = list(complete(house, ["one", "two"], stream=True, stream_options=options))
    texts = {0: "", 1: ""}
    reasons = {}
    for chunk in chunks[:-1]:
        texts[chunk.choices[0].index] += chunk.choices[0].text
        reasons[chunk.choices[0].index] = chunk.choices[0].finish_reason
    assert texts == {0: " a b c d e f", 1: " a b c d e f"}
    assert reasons == {0: "stop", 1: "stop"}
    assert chunks[-1].usage.completion_tokens == 2 * (len(house.decode.answer) + 1)


def test_logprobs_have_the_old_apis_shape(house: Any) -> None:
    logprobs = complete(house, "Count", logprobs=2).choices[0].logprobs
    assert logprobs.tokens == [" a", " b", " c", " d", " e", " f"]
    assert logprobs.text_offset == [0, 2, 4, 6, 8, 10]
    assert logprobs.token_logprobs == [-0.25] * 6
    assert all(len(top) == 2 for top in logprobs.top_logprobs)


def test_streamed_offsets_go_on_from_chunk_to_chunk(house: Any) -> None:
    chunks = list(complete(house, "Count", logprobs=0, stream=True))
    parts = [c.choices[0].logprobs for c in chunks if c.choices[0].logprobs]
    assert [offset for part in parts for offset in part.text_offset] == [0, 2, 4, 6, 8, 10]


def test_token_ids_are_returned_when_asked_for(house: Any) -> None:
    choice = complete(house, [5, 6], extra_body={"return_token_ids": True}).choices[0]
    assert choice.token_ids == house.decode.answer
    assert choice.prompt_token_ids == [5, 6]


def test_special_tokens_are_shown_on_request(house: Any) -> None:
    house.decode.answer = [*house.decode.answer, 1]
    assert complete(house, "x").choices[0].text == " a b c d e f"
    shown = complete(house, "x", extra_body={"skip_special_tokens": False}).choices[0].text
    assert shown == " a b c d e f<|im_start|>"


def test_a_request_that_names_no_model_gets_the_one_that_is_served(house: Any) -> None:
    reply = house.router.post("/v1/completions", {"prompt": "Count"})
    assert reply.status_code == 200, reply.text
    assert reply.json()["model"] == "smollm2"
