"""Every turn of a chat hits every full page of the turns before, counted by writer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import openai
import pytest
from loop_client import Answer, complete
from running import EXACT, Cluster, Running, drained, fetch, wait_for

pytestmark = pytest.mark.integration
PAGE = 16
NUM_TURNS = 5


@dataclass
class Loop:
    url: str
    prefill: Running
    decode: Running

    def drain(self) -> None:
        wait_for("the drain", lambda: drained(self.prefill, self.decode))


@pytest.fixture(scope="module", params=["file", "mooncake"])
def loop(
    request: pytest.FixtureRequest,
    tiny_models: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Loop]:
    directory = tmp_path_factory.mktemp("reuse")
    flags = ("--dtype", "float32", "--page-size", str(PAGE))
    with Cluster(directory, tiny_models["llama"], *flags, *EXACT) as cluster:
        if request.param == "file":
            cluster.file_cache()
        else:
            cluster.mooncake()
        router, prefill, decode = cluster.router(), cluster.node("prefill"), cluster.node("decode")
        for running in (prefill, decode, router):
            running.wait_ready()
        wait_for("L3", lambda: all(is_attached(node) for node in (prefill, decode)))
        yield Loop(cluster.url, prefill, decode)


def is_attached(node: Running) -> bool:
    return node.metric("kvloop_storage_state", state="attached") == 1


def expected_pages(turns: list[Answer], num_new: int) -> tuple[int, int]:
    """(by prefill, by decode): whose turn each full page of the history was filled in.

    A page belongs to decode when its last token is an answer's; the last sampled token has no KV.
    """
    by_prefill = by_decode = 0
    for turn in turns:
        before = by_prefill + by_decode
        by_prefill = by_prefill + max(len(turn.prompt) // PAGE - before, 0)
        full = (len(turn.history) - 1) // PAGE
        by_decode += full - (by_prefill + by_decode)
    assert num_new > 0
    return by_prefill, by_decode


@pytest.mark.parametrize("cache", ["l3_only", "on"])
def test_every_turn_of_a_five_turn_chat_hits_every_full_page_before_it(
    loop: Loop, cache: str, random_ids: Random
) -> None:
    turns: list[Answer] = []
    prompt = [random_ids.randrange(1000, 20000) for _ in range(random_ids.randrange(40, 90))]
    for number in range(NUM_TURNS):
        num_answer = random_ids.randrange(4 * PAGE + PAGE, 6 * PAGE)
        answer = complete(loop.url, prompt, num_answer, cache=cache, cache_salt=cache)
        by_prefill, by_decode = expected_pages(turns, len(prompt))
        reusable = (by_prefill + by_decode) * PAGE
        assert answer.sources["computed"] == len(prompt) - reusable, f"turn {number + 1}"
        if cache == "l3_only":
            found = (answer.by_prefill // PAGE, answer.by_decode // PAGE)
            assert found == (by_prefill, by_decode), f"turn {number + 1}"
        else:
            held = answer.sources["transfer_skipped"] + answer.sources["storage"]
            assert held + answer.sources["device"] == reusable
        turns.append(answer)
        new = [random_ids.randrange(1000, 20000) for _ in range(random_ids.randrange(20, 60))]
        prompt = answer.history + new
        loop.drain()
    assert all(len(turn.ids) >= 4 * PAGE for turn in turns)


def test_five_turns_of_text_hit_every_full_page_through_the_openai_client(loop: Loop) -> None:
    client = openai.OpenAI(base_url=f"{loop.url}/v1", api_key="none")
    messages: list[Any] = []
    history: list[int] = []
    for number in range(NUM_TURNS):
        messages.append({"role": "user", "content": f"Tell me more about number {number}, please."})
        reply: Any = client.chat.completions.create(
            model="m",
            messages=messages,
            max_tokens=70,
            temperature=1.0,
            seed=number,
            extra_body={
                "ignore_eos": True,
                "return_token_ids": True,
                "kvloop": {"cache": "l3_only"},
                "cache_salt": "five turns of text",
            },
        )
        usage = reply.usage.model_dump()
        hit = usage["prompt_tokens_details"]["cached_tokens"]
        assert hit == max(len(history) - 1, 0) // PAGE * PAGE, f"turn {number + 1}"
        assert usage["kvloop"]["storage"] == hit
        (choice,) = reply.choices
        history = [*choice.prompt_token_ids, *choice.token_ids]
        messages.append({"role": "assistant", "content": choice.message.content})
        loop.drain()


def test_a_request_with_the_cache_off_leaves_no_trace_and_reads_none(
    loop: Loop, random_ids: Random
) -> None:
    prompt = [random_ids.randrange(1000, 20000) for _ in range(100)]
    first = complete(loop.url, prompt, 40, cache="off")
    again = complete(loop.url, first.history, 8, cache="on")
    assert first.sources["computed"] == 100
    assert again.sources["computed"] == len(first.history)
    warm = complete(loop.url, first.history, 8, cache="off")
    assert warm.sources["computed"] == len(first.history)
    assert warm.ids == again.ids


def test_two_salts_share_no_page(loop: Loop, random_ids: Random) -> None:
    prompt = [random_ids.randrange(1000, 20000) for _ in range(100)]
    complete(loop.url, prompt, 8, cache_salt="a")
    other = complete(loop.url, prompt, 8, cache_salt="b")
    same = complete(loop.url, prompt, 8, cache_salt="a")
    assert other.sources["computed"] == 100
    assert same.sources["computed"] == 100 - 96


def test_kv_moves_layer_by_layer_while_prefill_still_computes(
    loop: Loop, random_ids: Random
) -> None:
    prompt = [random_ids.randrange(1000, 20000) for _ in range(3000)]
    complete(loop.url, prompt, 2, cache="off")
    (trace,) = fetch(f"{loop.decode.url}/server_info")[1]["hand_offs"][-1:]
    assert 0 < trace["bytes_before_last_layer"] < trace["bytes"]
    assert trace["first_layer_at"] < trace["last_layer_computed_at"] < trace["done_at"]
