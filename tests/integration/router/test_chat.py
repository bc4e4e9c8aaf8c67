"""Chat completions through the real OpenAI client."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from kvloop.shared_cache.wire import PromptSources, Tokens, encode_line

pytestmark = pytest.mark.integration

ANSWER = "Paris is the capital of France 🇫🇷, naturally. Žluťoučký kůň!"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(autouse=True)
def answer(house: Any, tokenizer: Any) -> None:
    house.decode.answer = tokenizer.encode(ANSWER, add_special_tokens=False)


def chat(house: Any, messages: Any = None, **options: Any) -> Any:
    create = house.router.openai.chat.completions.create
    return create(model="smollm2", messages=messages or QUESTION, **options)


def test_a_chat_is_answered_with_the_nodes_tokens_as_text(house: Any, tokenizer: Any) -> None:
    reply = chat(house)
    assert reply.choices[0].message.content == ANSWER
    assert reply.choices[0].finish_reason == "stop"
    sent = house.decode.requests[0]
    plain = tokenizer.render(QUESTION, {})
    assert sent.prompt == tokenizer.encode(plain, add_special_tokens=False)
    assert [c.url for c in sent.prefills] == [house.prefill.url]
    assert reply.usage.prompt_tokens == len(sent.prompt)
    assert reply.usage.completion_tokens == len(house.decode.answer) + 1


def test_a_streamed_chat_joins_to_the_same_text_and_ends_with_its_usage(house: Any) -> None:
    chunks = list(chat(house, stream=True, stream_options={"include_usage": True}))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == ANSWER
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == len(house.decode.answer) + 1
    assert all(c.usage is None for c in chunks[:-1])


async def test_the_async_client_streams_the_same_text(house: Any) -> None:
    client = openai.AsyncOpenAI(base_url=f"{house.router.url}/v1", api_key="any", max_retries=0)
    stream = await client.chat.completions.create(model="smollm2", messages=QUESTION, stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == ANSWER
    whole = await client.chat.completions.create(model="smollm2", messages=QUESTION)
    assert whole.choices[0].message.content == ANSWER


def test_usage_tells_where_the_prompts_kv_came_from(house: Any) -> None:
    house.decode.sources = lambda job: PromptSources(
        computed=len(job.prompt) - 10,
        host=1,
        storage=7,
        transfer_skipped=2,
        storage_by_prefill=4,
        storage_by_decode=3,
    )
    usage = chat(house).usage
    assert usage.prompt_tokens_details.cached_tokens == 10
    assert usage.kvloop == {
        "computed": usage.prompt_tokens - 10,
        "device": 0,
        "host": 1,
        "storage": 7,
        "transfer_skipped": 2,
        "by_writer": {"prefill": 4, "decode": 3},
        "prefill_node": house.prefill.url,
        "decode_node": house.decode.url,
        "fallback": None,
    }
    assert house.router.metric('kvloop_prompt_tokens_total{source="storage"}') == 7
    assert house.router.metric('kvloop_storage_hit_tokens_total{writer="decode"}') == 3


def test_a_stop_string_across_tokens_cuts_the_text_and_stops_the_node(
    house: Any, tokenizer: Any
) -> None:
    async def answer_then_wait(node: Any, job: Any, response: Any) -> None:
        await node.start_answer(job, response)
        for token in node.answer:
            await response.write(encode_line(Tokens(ids=[token])))
        await asyncio.sleep(60)

    house.decode.script = answer_then_wait
    reply = chat(house, stop=["capital of Fra", "never"])
    assert reply.choices[0].message.content == "Paris is the "
    assert reply.choices[0].finish_reason == "stop"
    assert house.decode.aborted.wait(10)
    chunks = list(chat(house, stop="capital of Fra", stream=True))
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert text == "Paris is the "


def test_logprobs_have_openais_shape(house: Any) -> None:
    reply = chat(house, logprobs=True, top_logprobs=2)
    content = reply.choices[0].logprobs.content
    assert b"".join(bytes(entry.bytes) for entry in content).decode() == ANSWER
    assert content[0].logprob == -0.25
    assert [top.logprob for top in content[0].top_logprobs] == [0, -0.5]
    assert house.decode.requests[0].sampling.top_logprobs == 2


def test_streamed_logprobs_are_those_of_the_whole_answer(house: Any) -> None:
    whole = chat(house, logprobs=True).choices[0].logprobs.content
    chunks = list(chat(house, logprobs=True, stream=True))
    parts = [c.choices[0].logprobs.content for c in chunks if c.choices[0].logprobs]
    assert [entry for part in parts for entry in part] == whole


def test_token_ids_are_returned_when_asked_for(house: Any) -> None:
    reply = chat(house, extra_body={"return_token_ids": True})
    assert reply.choices[0].token_ids == house.decode.answer
    assert reply.choices[0].prompt_token_ids == house.decode.requests[0].prompt
    chunks = list(chat(house, stream=True, extra_body={"return_token_ids": True}))
    assert [i for c in chunks for i in c.choices[0].token_ids] == house.decode.answer


def test_sampling_fields_reach_the_node(house: Any) -> None:
    chat(
        house,
        max_completion_tokens=7,
        temperature=0.5,
        top_p=0.9,
        seed=-3,
        frequency_penalty=0.1,
        presence_penalty=-0.2,
        extra_body={
            "top_k": 5,
            "min_p": 0.05,
            "repetition_penalty": 1.1,
            "stop_token_ids": [7],
            "ignore_eos": True,
            "cache_salt": "pepper",
            "kvloop": {"cache": "l3_only"},
        },
    )
    sent = house.decode.requests[0]
    sampling = sent.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (7, 0.5, 0.9)
    assert (sampling.top_k, sampling.min_p, sampling.stop_token_ids) == (5, 0.05, (7,))
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (0.1, -0.2)
    assert sampling.repetition_penalty == 1.1 and sampling.ignore_eos
    assert sampling.seed is not None and sampling.seed >= 0
    assert sent.cache == "l3_only" and len(bytes.fromhex(sent.cache_seed)) == 32


def test_an_unset_max_tokens_leaves_all_the_context(house: Any) -> None:
    chat(house)
    sent = house.decode.requests[0]
    assert sent.sampling.max_tokens == house.decode.max_context - len(sent.prompt)
    assert sent.cache_seed is None


def test_the_request_id_travels_to_the_node_and_back(house: Any) -> None:
    body = {"model": "smollm2", "messages": QUESTION}
    reply = house.router.post("/v1/chat/completions", body, headers={"X-Request-Id": "abc 1"})
    assert reply.headers["x-request-id"] == "abc 1"
    assert house.decode.headers[0]["x-request-id"] == "abc 1"
    assert house.decode.requests[0].request_id.startswith("abc 1-")
    assert len(house.router.post("/v1/chat/completions", body).headers["x-request-id"]) == 32


def test_the_next_turn_repeats_the_very_tokens_of_the_answer(house: Any, tokenizer: Any) -> None:
    whole = tokenizer.encode("Hello there", add_special_tokens=False)
    spelled = [i for c in "Hello there" for i in tokenizer.encode(c, add_special_tokens=False)]
    assert spelled != whole
    house.decode.answer = spelled
    said = chat(house).choices[0].message
    house.decode.answer = whole
    again = [*QUESTION, said.model_dump(), {"role": "user", "content": "And of Spain?"}]
    chat(house, again)
    first, second = house.decode.requests
    assert second.prompt[: len(first.prompt) + len(spelled)] == first.prompt + spelled
    text = tokenizer.decode(second.prompt, skip_special_tokens=False)
    assert text == tokenizer.render([{**m, "content": m["content"]} for m in again], {})
    assert house.router.metric('kvloop_retokenization_drift_total{repaired="true"}') == 1


def test_a_changed_history_is_tokenized_anew(house: Any, tokenizer: Any) -> None:
    house.decode.answer = [
        i for c in "Hello" for i in tokenizer.encode(c, add_special_tokens=False)
    ]
    chat(house)
    again = [*QUESTION, {"role": "assistant", "content": "Hello!"}, QUESTION[0]]
    chat(house, again)
    plain = tokenizer.encode(tokenizer.render(again, {}), add_special_tokens=False)
    assert house.decode.requests[1].prompt == plain


def test_text_parts_are_joined_and_the_developer_speaks_as_system(
    house: Any, tokenizer: Any
) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    chat(house, [{"role": "developer", "content": "Be brief"}, {"role": "user", "content": parts}])
    text = tokenizer.decode(house.decode.requests[0].prompt, skip_special_tokens=False)
    assert "<|im_start|>system\nBe brief<|im_end|>" in text
    assert "<|im_start|>user\none\ntwo<|im_end|>" in text


def test_the_model_is_listed(house: Any) -> None:
    listed = house.router.openai.models.list().data
    assert [model.id for model in listed] == ["smollm2"]
    assert house.router.openai.models.retrieve("smollm2").id == "smollm2"
    with pytest.raises(openai.NotFoundError):
        house.router.openai.models.retrieve("other")
