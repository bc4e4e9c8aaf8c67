"""Reading a streamed answer."""

import json
from typing import Any

import pytest

from kvloop.benchmark.stream import BadAnswer, StreamedAnswer

USAGE = {"prompt_tokens": 3, "completion_tokens": 3}


def line(event: Any) -> bytes:
    return b"data: " + json.dumps(event).encode() + b"\n"


def tokens(*ids: int) -> bytes:
    return line({"choices": [{"index": 0, "text": "x" * len(ids), "token_ids": list(ids)}]})


def read(*lines: bytes) -> StreamedAnswer:
    answer = StreamedAnswer()
    for at, each in enumerate(lines):
        answer.add_line(each, float(at))
    return answer


def test_a_whole_answer_gives_its_ids_text_and_usage() -> None:
    answer = read(
        tokens(5), b"\n", tokens(6, 7), line({"choices": [], "usage": USAGE}), b"data: [DONE]"
    )
    assert (answer.ids, answer.text, answer.finish()) == ([5, 6, 7], "xxx", USAGE)


def test_tokens_that_come_together_share_the_time_since_the_last() -> None:
    answer = read(tokens(5), b"\n", tokens(6, 7))
    assert answer.gaps() == (1.0, 1.0)


def test_a_chat_delta_counts_as_a_token_and_an_empty_one_does_not() -> None:
    answer = read(
        line({"choices": [{"delta": {"role": "assistant", "content": ""}}]}),
        line({"choices": [{"delta": {"content": "hello"}}]}),
    )
    assert answer.arrivals == [(1.0, 1)]


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ([tokens(5), line({"choices": [], "usage": USAGE})], "truncated"),
        ([tokens(5), b"data: [DONE]"], "no_usage"),
        ([line({"choices": [], "usage": USAGE}), b"data: [DONE]"], "empty"),
    ],
)
def test_an_answer_that_is_not_whole_is_an_error_of_its_own_kind(
    lines: list[bytes], kind: str
) -> None:
    with pytest.raises(BadAnswer) as caught:
        read(*lines).finish()
    assert caught.value.kind == kind


def test_an_error_event_ends_the_answer() -> None:
    with pytest.raises(BadAnswer, match="prefill died") as caught:
        read(tokens(5), line({"error": {"message": "prefill died"}}))
    assert caught.value.kind == "stream_error"


def test_an_event_that_is_no_json_is_an_error() -> None:
    with pytest.raises(BadAnswer, match="no JSON"):
        read(b"data: {oops\n")
