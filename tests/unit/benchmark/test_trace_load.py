"""A trace as a load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from made_traces import line_of, made_requests, request, write_lines, write_trace

from kvloop.benchmark.replay.trace import Request
from kvloop.benchmark.workloads.plan import num_requests
from kvloop.benchmark.workloads.trace import Trace, TraceOptions, load_trace
from kvloop.shared_cache.errors import ConfigError

# Below id 0: a chat of three turns, one of two, and one of a single long prompt.
CHATS = [
    request(1000, 0, 1, last=256),
    request(2000, 0, 2, last=512),
    request(4000, 0, 1, 3, last=512),
    request(5000, 0, *range(50, 69)),
    request(6000, 0, 2, 4, last=100),
    request(9000, 0, 1, 3, 5, last=512, output=1024),
]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return write_trace(tmp_path / "chats.jsonl", CHATS)


def load(path: Path, **options: Any) -> Trace:
    return load_trace(TraceOptions(**{"trace": path, "context": 8192, **options}))


def prompts(loaded: Trace) -> list[tuple[int, ...]]:
    return [
        loaded.say(number, turn + 1).ids
        for number, one in enumerate(loaded.conversations)
        for turn in range(len(one.turns))
    ]


def test_each_chat_is_a_conversation_whose_turns_are_due_when_the_trace_says(trace: Path) -> None:
    turns = [one.turns for one in load(trace).conversations]
    assert [[turn.at_s for turn in each] for each in turns] == [[1, 4, 9], [2, 6], [5]]
    twice = [one.turns for one in load(trace, time_scale=2).conversations]
    assert [[turn.at_s for turn in each] for each in twice] == [[0.5, 2, 4.5], [1, 3], [2.5]]


def test_a_turn_says_its_whole_prompt_and_a_later_one_begins_like_it(trace: Path) -> None:
    loaded = load(trace)
    first, second, third = (loaded.say(0, turn) for turn in (1, 2, 3))
    block = loaded.scale.block_tokens
    assert first.is_whole and second.is_whole
    assert third.ids[: len(second.ids)] == second.ids
    assert second.ids[:block] == first.ids[:block] == loaded.say(2, 1).ids[:block]
    assert loaded.say(1, 1).ids[block] != first.ids[block]


def test_lengths_are_scaled_to_the_context_and_answers_too(trace: Path) -> None:
    loaded = load(trace, context=1024)
    block = loaded.scale.block_tokens
    assert max(map(len, prompts(loaded))) == 20 * block <= 1024 < 20 * (block + 1) + 10
    assert len(loaded.say(0, 1).ids) == block + block // 2 + block % 2
    assert loaded.conversations[0].turns[2].output_length == 2 * block
    assert load(trace, context=1024, block_tokens=16).scale.block_tokens == 16
    capped = load(trace, context=1024, max_output=3)
    assert {turn.output_length for one in capped.conversations for turn in one.turns} == {3}


def test_in_text_a_prompt_is_one_message_and_leaves_room_for_the_template(trace: Path) -> None:
    loaded = load(trace, context=1024, content="text")
    (message,) = loaded.say(2, 1).messages
    assert message.role == "user" and loaded.say(2, 1).is_whole
    assert len(message.content.split()) == 20 * loaded.scale.block_tokens <= 1024 - 64
    shorter, longer = (loaded.say(0, turn).messages[0].content for turn in (2, 3))
    assert longer.startswith(shorter + " ")
    with pytest.raises(ConfigError, match="--context 64: 64 tokens of it are kept free"):
        load(trace, context=64, content="text")


def test_ids_are_of_the_range(trace: Path) -> None:
    said = {number for ids in prompts(load(trace, id_range=(7, 17))) for number in ids}
    assert said == set(range(7, 17))


def test_equal_options_say_equal_prompts_whatever_else_is_chosen(trace: Path) -> None:
    loaded = load(trace, block_tokens=32)
    assert prompts(loaded) == prompts(load(trace, block_tokens=32))
    assert prompts(loaded) != prompts(load(trace, block_tokens=32, seed=1))
    first = load(trace, block_tokens=32, limit=2, choose="first")
    assert first.say(1, 1) == loaded.say(1, 1)


def test_the_warm_up_says_what_no_request_says(trace: Path) -> None:
    loaded = load(trace)
    said = [loaded.say(-number, 1).ids for number in (1, 2)]
    assert said == [load(trace).say(-number, 1).ids for number in (1, 2)]
    assert len(said[0]) == len(loaded.say(0, 1).ids)
    heads = {ids[:8] for ids in (*said, *prompts(loaded))}
    assert len(heads) == 3, "two warm-ups, and the system prompt"


def test_the_limit_takes_conversations_or_the_first_requests(trace: Path) -> None:
    by_chat = load(trace, limit=3, min_reuse=0.3)
    assert num_requests(by_chat) == 3 and len(by_chat.conversations) == 1
    first = load(trace, limit=3, choose="first")
    assert [len(one.turns) for one in first.conversations] == [2, 1]
    assert num_requests(load(trace, limit=60)) == 6


def test_a_share_that_cannot_be_reached_is_refused_only_where_there_is_a_choice(
    trace: Path,
) -> None:
    with pytest.raises(ConfigError, match=r"--min-reuse 0\.9: no 4 requests"):
        load(trace, limit=4, min_reuse=0.9)
    assert num_requests(load(trace, min_reuse=0.9)) == 6
    assert num_requests(load(trace, limit=4, min_reuse=0.9, choose="first")) == 4


def test_conversations_with_longer_prompts_are_left_out(trace: Path) -> None:
    assert [len(one.turns) for one in load(trace, longest=2048).conversations] == [3, 2]
    with pytest.raises(ConfigError, match="--longest 10: every conversation"):
        load(trace, longest=10)


def test_the_report_says_what_the_flags_came_to(trace: Path) -> None:
    options = {"limit": 5, "longest": 2048, "time_scale": 3.0, "max_output": 90, "seed": 4}
    loaded = load(trace, context=1000, id_range=(5, 900), **options)
    described = loaded.describe()
    assert msgspec.json.decode(msgspec.json.encode(described)) == {
        "kind": "trace",
        "content": "token-ids",
        "trace": "chats.jsonl",
        "context": 1000,
        **options,
        "choose": "conversation",
        "min_reuse": 0.35,
        "strict": False,
        "id_range": [5, 900],
        "factor": loaded.scale.factor,
        "block_tokens": loaded.scale.block_tokens,
        "requests": 5,
        "longest_with_answer": 4 * loaded.scale.block_tokens + 90,
        "ids": 14,
        "different_ids": 6,
        "ids_seen_before_share": round(8 / 14, 4),
        "continuations": 3,
        "requests_of_trace": 6,
        "dropped_lines": 0,
    }
    assert load(trace, choose="first", limit=2).describe()["min_reuse"] is None
    assert load(trace).describe()["min_reuse"] is None


def test_a_turn_that_does_not_hold_the_one_before_is_no_continuation(tmp_path: Path) -> None:
    requests = [
        request(0, 1, 2),
        request(1, 1, 3),
        request(2, 1, 3, 4),
        *(request(3 + other, 7 + other) for other in range(3)),  # or id 1 were a system prompt's
    ]
    loaded = load(write_trace(tmp_path / "t", requests))
    assert [len(one.turns) for one in loaded.conversations] == [3, 1, 1, 1]
    assert loaded.describe()["continuations"] == 1


def test_broken_lines_are_left_out_named_in_the_report_or_end_a_strict_run(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "t", [line_of(CHATS[0]), "{", *map(line_of, CHATS[1:])])
    loaded = load(path)
    assert num_requests(loaded) == 6 and loaded.describe()["dropped_lines"] == 1
    (warning,) = loaded.warnings
    assert "t: 1 left out: line 2: " in warning
    with pytest.raises(ConfigError, match=r"--trace .* line 2: "):
        load(path, is_strict=True)


def test_too_few_requests_and_blocks_below_a_page_are_warned_of(trace: Path) -> None:
    assert not load(trace).warnings
    assert "the trace gave 6 requests, and --limit asked for 9" in load(trace, limit=9).warnings
    (warning,) = load(trace, context=200).warnings
    assert "an id stands for" in warning and "fewer than a page" in warning


@given(requests=made_requests())
def test_every_request_of_any_trace_is_sent_once_and_fits(
    tmp_path_factory: pytest.TempPathFactory, requests: list[Request]
) -> None:
    path = write_trace(tmp_path_factory.mktemp("trace") / "t", requests)
    loaded = load(path, context=100)
    sent = [request for group in loaded.requests for request in group]
    assert sorted(sent, key=lambda one: one.at_ms) == requests
    assert loaded.ceiling.tokens == sum(map(len, prompts(loaded)))
    for number, conversation in enumerate(loaded.conversations):
        for turn, one in enumerate(conversation.turns, start=1):
            assert len(loaded.say(number, turn).ids) + one.output_length <= 100
        times = [one.at_s for one in conversation.turns]
        assert times == sorted(times, key=lambda at: at or 0)


@pytest.mark.parametrize(
    ("field", "value", "flag"),
    [
        ("context", 0, "--context"),
        ("time_scale", 0.0, "--time-scale"),
        ("block_tokens", 0, "--block-tokens"),
        ("limit", 0, "--limit"),
        ("longest", -1, "--longest"),
        ("max_output", 0, "--max-output"),
        ("min_reuse", 1.5, "--min-reuse"),
        ("id_range", (5, 6), "--id-range"),
        ("id_range", (-1, 6), "--id-range"),
    ],
)
def test_a_wrong_value_names_its_flag(field: str, value: Any, flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        replace(TraceOptions(trace=Path("t")), **{field: value})
