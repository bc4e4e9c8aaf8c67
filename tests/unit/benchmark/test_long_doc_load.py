"""Questions about long documents."""

from typing import Any

import pytest

from kvloop.benchmark.workloads.long_doc import LongDocument
from kvloop.shared_cache.errors import ConfigError


def test_together_a_conversation_begins_with_its_document_and_asks_on() -> None:
    load = LongDocument(documents=3, document_length=50, questions=4, question_length=5)
    assert [len(one.turns) for one in load.conversations] == [4, 4, 4]
    assert [len(load.say(1, turn).ids) for turn in (1, 2, 3, 4)] == [55, 5, 5, 5]
    assert len({load.say(number, 1).ids for number in range(3)}) == 3


def test_apart_every_question_is_a_conversation_that_begins_with_its_document() -> None:
    load = LongDocument(
        documents=2, document_length=50, questions=3, question_length=5, asked="apart"
    )
    assert [len(one.turns) for one in load.conversations] == [1] * 6
    prompts = [load.say(number, 1).ids for number in range(6)]
    assert {len(prompt) for prompt in prompts} == {55}
    assert len({prompt[:50] for prompt in prompts}) == 2
    assert len({prompt[50:] for prompt in prompts}) == 6


def test_apart_each_document_is_asked_about_before_any_is_again() -> None:
    load = LongDocument(documents=3, questions=2, document_length=8, asked="apart")
    heads = [load.say(number, 1).ids[:8] for number in range(6)]
    assert len(set(heads[:3])) == 3 and heads[3:] == heads[:3]


def test_both_ways_ask_the_same_questions_about_the_same_documents() -> None:
    together = LongDocument(documents=2, questions=2, document_length=8)
    apart = LongDocument(documents=2, questions=2, document_length=8, asked="apart")
    assert apart.say(1, 1) == together.say(1, 1)
    assert apart.say(3, 1).ids[8:] == together.say(1, 2).ids


def test_in_text_a_document_and_its_question_are_one_message() -> None:
    load = LongDocument(content="text", document_length=50, question_length=5, asked="apart")
    (first,) = load.say(0, 1).messages
    (again,) = load.say(4, 1).messages
    document, question = first.content.split("\n\n")
    assert first.role == "user"
    assert len(document.split()) == 50 and len(question.split()) == 5
    assert again.content.startswith(document) and again != first


def test_lengths_are_drawn_from_their_ranges() -> None:
    load = LongDocument(
        documents=20, document_length=(50, 60), question_length=(5, 9), output_length=(3, 8)
    )
    firsts = {len(load.say(number, 1).ids) for number in range(20)}
    questions = {len(load.say(number, 2).ids) for number in range(20)}
    answers = {turn.output_length for one in load.conversations for turn in one.turns}
    assert len(firsts) > 5 and firsts <= set(range(55, 70))
    assert questions == set(range(5, 10)) and answers == set(range(3, 9))


def test_a_reader_thinks_before_every_question_but_the_first() -> None:
    load = LongDocument(questions=3, think_s=(1.0, 2.0))
    times = [turn.think_s for turn in load.conversations[0].turns]
    assert times[0] == 0.0 and all(1.0 <= time <= 2.0 for time in times[1:])
    assert times[1] != times[2]


def test_thinking_between_questions_needs_them_in_one_conversation() -> None:
    with pytest.raises(ConfigError, match=r"--think-s .* --apart"):
        LongDocument(asked="apart", think_s=1.0)


def test_equal_seeds_give_equal_documents_and_warming_up_reads_another() -> None:
    load = LongDocument(document_length=20)
    assert load.say(2, 1) == LongDocument(document_length=20).say(2, 1)
    assert load.say(2, 1) != LongDocument(document_length=20, seed=1).say(2, 1)
    assert load.say(-1, 1).ids[:20] not in {load.say(n, 1).ids[:20] for n in range(4)}


def test_the_report_gets_the_flags() -> None:
    words = LongDocument(asked="apart", question_length=(5, 9)).describe()
    assert words["kind"] == "long-doc" and words["asked"] == "apart"
    assert words["question_length"] == [5, 9] and words["requests"] == 16


@pytest.mark.parametrize(
    ("field", "value", "flag"),
    [
        ("documents", 0, "--documents"),
        ("document_length", 0, "--document-length"),
        ("questions", 0, "--questions"),
        ("question_length", (3, 2), "--question-length"),
        ("output_length", 0, "--output-length"),
        ("think_s", -1.0, "--think-s"),
    ],
)
def test_a_wrong_value_names_its_flag(field: str, value: Any, flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        LongDocument(**{field: value})
