"""Chats in every form that datasets have."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvloop.benchmark.workloads.dataset_forms import BadChat, Chat, parse_chat

Heard = list[tuple[list[tuple[str, str]], str | None]]


def heard(chat: Chat) -> Heard:
    """What each turn says, by speaker, and what was answered then."""
    return [([(m.role, m.content) for m in turn.messages], turn.recorded) for turn in chat.turns]


def said(*pairs: str, names: str = "role content") -> list[dict[str, str]]:
    """Messages from "speaker: words"."""
    role, content = names.split()
    return [dict(zip((role, content), pair.split(": ", 1), strict=True)) for pair in pairs]


TWO_TURNS: Heard = [
    ([("system", "be brief"), ("user", "hello")], "hi"),
    ([("user", "how are you")], None),
]


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (
            {
                "id": "x_0",
                "conversations": said(
                    "system: be brief",
                    "human: hello",
                    "gpt: hi",
                    "human: how are you",
                    names="from value",
                ),
            },
            "sharegpt",
        ),
        (
            {
                "messages": said(
                    "developer: be brief", "user: hello", "assistant: hi", "user: how are you"
                )
            },
            "openai",
        ),
        (said("system: be brief", "user: hello", "assistant: hi", "user: how are you"), "openai"),
        (
            said(
                "system: be brief",
                "user: hello",
                "chatgpt: hi",
                "user: how are you",
                names="from value",
            ),
            "sharegpt",
        ),
    ],
)
def test_messages_become_turns_with_what_was_answered(value: Any, form: str) -> None:
    chat = parse_chat(value)
    assert (chat.form, heard(chat)) == (form, TWO_TURNS)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ({"question_id": 81, "turns": ["hello", "bye"], "category": "x"}, "turns"),
        (["hello", "bye"], "turns"),
        ({"prompt": "hello"}, "prompt"),
        ({"question": "hello", "answer": "hi"}, "prompt"),
    ],
)
def test_plain_strings_are_what_the_user_says_turn_by_turn(value: Any, form: str) -> None:
    chat = parse_chat(value)
    assert chat.form == form
    expected = ["hello", "bye"] if form == "turns" else ["hello"]
    assert heard(chat) == [([("user", words)], None) for words in expected]


def test_parts_of_text_are_one_text() -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    assert heard(parse_chat({"messages": [{"role": "user", "content": parts}]})) == [
        ([("user", "hello")], None)
    ]


def test_a_tools_result_is_said_by_the_user_and_its_call_is_no_recorded_answer() -> None:
    call: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [{}]}
    chat = {"messages": [*said("user: weather?"), call, *said("tool: sunny", "assistant: good")]}
    assert heard(parse_chat(chat)) == [
        ([("user", "weather?")], None),
        ([("user", "sunny")], "good"),
    ]


def test_messages_of_one_speaker_in_a_row_are_one_but_turns_stay_turns() -> None:
    chat = {"messages": said("user: a", "user: b", "assistant: c", "assistant: d")}
    assert heard(parse_chat(chat)) == [([("user", "a\n\nb")], "c\n\nd")]
    assert len(parse_chat({"turns": ["a", "b"]}).turns) == 2


def test_an_answer_before_any_question_is_left_out() -> None:
    chat = said("gpt: as I said", "human: go on", "gpt: well", names="from value")
    assert heard(parse_chat({"conversations": chat})) == [([("user", "go on")], "well")]


def test_what_is_answered_to_the_system_alone_is_no_answer_to_the_question_before() -> None:
    chat = said("user: a", "assistant: b", "system: c", "assistant: d", "user: e")
    turns = heard(parse_chat(chat))
    assert turns == [([("user", "a")], "b"), ([("system", "c"), ("user", "e")], None)]


def test_words_of_the_system_in_the_middle_go_with_the_next_turn() -> None:
    chat = said("user: a", "assistant: b", "system: c", "user: d")
    assert heard(parse_chat(chat))[1] == ([("system", "c"), ("user", "d")], None)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (5, "neither an object nor a list, but 5"),
        ({}, "has none of `conversations`, `messages`"),
        ([], "neither strings nor messages"),
        (["a", 5], "neither strings nor messages"),
        ({"turns": "hello"}, "`turns` is not made of strings"),
        ({"turns": ["a", None]}, "`turns` is not made of strings"),
        ({"turns": []}, "nobody asks anything"),
        ({"prompt": 5}, "`prompt` is not made of strings"),
        ({"prompt": " "}, "message 1 is empty"),
        ({"messages": "hello"}, "not a list of objects"),
        ({"messages": said("assistant: hi")}, "nobody asks anything"),
        ({"messages": said("user: a", "alien: b")}, "message 2: `role` is 'alien', and none of"),
        ({"messages": [{"content": "a"}]}, "message 1: `role` is None"),
        ({"messages": [{"role": "user", "content": ""}]}, "message 1 is empty"),
        ({"messages": [{"role": "user", "content": 7}]}, "message 1: `content` is 7, not text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "a part is 'image_url'; only text can be sent",
        ),
        (
            {"conversations": [{"from": "human"}]},
            "message 1 is empty",
        ),
        ({"messages": [{"role": "x" * 90, "content": ""}]}, "x…, and none"),
    ],
)
def test_what_is_no_chat_says_why(value: Any, words: str) -> None:
    with pytest.raises(BadChat, match=words):
        parse_chat(value)


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["conversations", "messages", "turns", "prompt", "role", "content", "from", "value"]
            ),
            inner | st.sampled_from(["user", "human", "gpt", "text"]),
            max_size=3,
        )
    ),
)


@given(value=JSON)
def test_any_json_is_a_chat_that_can_be_sent_or_says_why_not(value: Any) -> None:
    try:
        chat = parse_chat(json.loads(json.dumps(value)))
    except BadChat as error:
        assert str(error)
        return
    for turn in chat.turns:
        assert turn.messages[-1].role == "user"
        assert all(one.content.strip() for one in turn.messages)
