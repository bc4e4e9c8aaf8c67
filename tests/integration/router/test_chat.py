"""Chat completions through the real OpenAI client."""

from __future__ import annotations

import time
from typing import Any

import httpx2 as httpx
import openai
import pytest

from kvloop.shared_cache.wire import PromptSources

pytestmark = pytest.mark.integration

ANSWER = "Paris is the capital of France 🇫🇷, naturally. Žluťoučký kůň!"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def wait_ready(url: str) -> None:
    deadline = time.monotonic() + 20
    while httpx.get(f"{url}/readyz").status_code != 200:
        assert time.monotonic() < deadline, httpx.get(f"{url}/readyz").text
        time.sleep(0.05)


@pytest.fixture
def loop(nodes: Any, routers: Any, tokenizer: Any) -> tuple[Any, Any, Any]:
    answer = tokenizer.encode(ANSWER, add_special_tokens=False)
    prefill = nodes.start("prefill")
    decode = nodes.start("decode", answer=answer, stop_token=2)
    router = routers.start(prefill=(prefill.url,), decode=(decode.url,))
    wait_ready(router.url)
    return router, prefill, decode


def client(router: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{router.url}/v1", api_key="any", max_retries=0)


def test_a_chat_is_answered_with_the_nodes_tokens_as_text(loop: Any, tokenizer: Any) -> None:
    router, prefill, decode = loop
    reply = client(router).chat.completions.create(model="smollm2", messages=QUESTION)
    assert reply.choices[0].message.content == ANSWER
    assert reply.choices[0].finish_reason == "stop"
    sent = decode.requests[0]
    plain = tokenizer.render(QUESTION, {})
    assert sent.prompt == tokenizer.encode(plain, add_special_tokens=False)
    assert [c.url for c in sent.prefills] == [prefill.url]
    assert reply.usage.prompt_tokens == len(sent.prompt)
    assert reply.usage.completion_tokens == len(decode.answer) + 1


def test_a_streamed_chat_joins_to_the_same_text_and_ends_with_its_usage(loop: Any) -> None:
    router, _, decode = loop
    stream = client(router).chat.completions.create(
        model="smollm2",
        messages=QUESTION,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == ANSWER
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == len(decode.answer) + 1
    assert all(c.usage is None for c in chunks[:-1])


def test_usage_tells_where_the_prompts_kv_came_from(loop: Any) -> None:
    router, prefill, decode = loop
    decode.sources = lambda job: PromptSources(
        computed=len(job.prompt) - 10,
        host=1,
        storage=7,
        transfer_skipped=2,
        storage_by_prefill=4,
        storage_by_decode=3,
    )
    usage = client(router).chat.completions.create(model="smollm2", messages=QUESTION).usage
    assert usage.prompt_tokens_details.cached_tokens == 10
    assert usage.kvloop == {
        "computed": usage.prompt_tokens - 10,
        "device": 0,
        "host": 1,
        "storage": 7,
        "transfer_skipped": 2,
        "by_writer": {"prefill": 4, "decode": 3},
        "prefill_node": prefill.url,
        "decode_node": decode.url,
        "fallback": None,
    }
