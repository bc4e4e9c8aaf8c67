"""Reading a streamed answer."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvloop.benchmark.driver.bad_answer import BadAnswer
from kvloop.benchmark.driver.stream import StreamedAnswer, read_blocks

USAGE = {"prompt_tokens": 3, "completion_tokens": 3}
DONE = b"data: [DONE]\n\n"


def line(event: Any) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def tokens(*ids: int) -> bytes:
    return line({"choices": [{"index": 0, "text": "x" * len(ids), "token_ids": list(ids)}]})


WHOLE = (tokens(5), tokens(6, 7), line({"choices": [], "usage": USAGE}), DONE)


def read(*blocks: bytes) -> StreamedAnswer:
    return read_blocks([(float(at), block) for at, block in enumerate(blocks)])


def test_a_whole_answer_gives_its_ids_text_usage_and_end() -> None:
    answer = read(*WHOLE)
    assert (answer.ids, answer.text, answer.finish()) == ([5, 6, 7], "xxx", USAGE)
    assert answer.ended_at == 3.0


@given(st.sets(st.integers(1, len(b"".join(WHOLE)) - 1)))
def test_blocks_may_be_cut_anywhere(cuts: set[int]) -> None:
    stream = b"".join(WHOLE)
    ends = [0, *sorted(cuts), len(stream)]
    answer = read(*(stream[a:b] for a, b in itertools.pairwise(ends)))
    assert (answer.ids, answer.text, answer.finish()) == ([5, 6, 7], "xxx", USAGE)


def test_a_last_line_without_its_end_counts() -> None:
    answer = read(*WHOLE[:-1], b"data: [DONE]")
    assert answer.finish() == USAGE and answer.ended_at == 3.0


def test_tokens_that_come_together_share_the_time_since_the_last() -> None:
    assert read(tokens(5), b"\n", tokens(6, 7)).gaps() == (1.0, 1.0)


def test_a_chat_delta_counts_as_a_token_and_an_empty_one_does_not() -> None:
    answer = read(
        line({"choices": [{"delta": {"role": "assistant", "content": ""}}]}),
        line({"choices": [{"delta": {"content": "hello"}}]}),
    )
    assert answer.arrivals == [(1.0, 1)]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_a_thought_counts_as_a_token_and_is_not_part_of_the_text(name: str) -> None:
    answer = read(
        line({"choices": [{"delta": {name: "hm"}}]}),
        line({"choices": [{"delta": {"content": "yes"}}]}),
    )
    assert [num for _, num in answer.arrivals] == [1, 1] and answer.text == "yes"


def test_prompt_ids_are_those_of_the_first_chunk_that_has_some() -> None:
    answer = read(line({"choices": [{"prompt_token_ids": [1, 2], "text": ""}]}), tokens(5))
    assert answer.prompt_ids == [1, 2]


def test_equal_answers_have_equal_digests_and_others_do_not() -> None:
    assert read(tokens(5, 6)).digest == read(tokens(5), tokens(6)).digest
    assert read(tokens(5, 6)).digest != read(tokens(6, 5)).digest
    hello, there = ({"choices": [{"delta": {"content": word}}]} for word in ("hello", "there"))
    assert read(line(hello)).digest != read(line(there)).digest


@pytest.mark.parametrize(
    ("lines", "kind", "words"),
    [
        ([tokens(5), line({"choices": [], "usage": USAGE})], "truncated", "DONE"),
        ([tokens(5), DONE], "no_usage", "--extra-body"),
        ([line({"choices": [], "usage": USAGE}), DONE], "empty", "no token"),
    ],
)
def test_an_answer_that_is_not_whole_is_an_error_of_its_own_kind(
    lines: list[bytes], kind: str, words: str
) -> None:
    with pytest.raises(BadAnswer, match=words) as caught:
        read(*lines).finish()
    assert caught.value.kind == kind


def test_an_error_event_ends_the_answer() -> None:
    with pytest.raises(BadAnswer, match="prefill died") as caught:
        read(tokens(5), line({"error": {"message": "prefill died"}}))
    assert caught.value.kind == "stream_error"


@pytest.mark.parametrize(
    "event",
    [
        *(b"{oops", b'{"choices": 3}', b'{"choices": [{"text": 1}]}'),
        *(b'{"choices": [{"token_ids": [%d]}]}' % wrong for wrong in (-1, 1 << 70)),
    ],
)
def test_an_event_that_is_no_json_or_not_of_its_shape_is_an_error(event: bytes) -> None:
    with pytest.raises(BadAnswer) as caught:
        read(b"data: " + event + b"\n")
    assert caught.value.kind == "bad_event"
