"""What a chat template strips, asked of templates of every kind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from thinking_templates import (
    EMPTIES,
    HALF_OPENS,
    KEEPS,
    KEEPS_OPENED,
    OPENS,
    PUTS_BEFORE,
    REFUSES,
    REFUSES_THINKING,
    REWRITES,
    STRIPS,
    byte_tokenizer,
)

from kvloop.router.thinking import MARKERS, StripRules, TemplateRule, template_rule
from kvloop.router.tokenizer import ChatTokenizer, TokenizerThreads
from kvloop.shared_cache.wire import StripRule

MARKS = ("<think>", "</think>")
CHAT = [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi there"}]


def served(template: str, **marks: Any) -> ChatTokenizer:
    return ChatTokenizer(byte_tokenizer(template, **(marks or {"shown": MARKS})))


def ids(tokenizer: ChatTokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


@pytest.fixture(scope="module")
def threads() -> Iterator[TokenizerThreads]:
    threads = TokenizerThreads(1)
    yield threads
    threads.close()


def asked(
    rules: StripRules, tokenizer: Any, prompt: list[int], variables: Any, skip: bool = True
) -> StripRule | None:
    return asyncio.run(rules.rule(tokenizer, prompt, variables, skip_special_tokens=skip))


def rule(
    tokenizer: ChatTokenizer, skip: bool = True, chat: Any = CHAT, **variables: Any
) -> StripRule | None:
    prompt = ids(tokenizer, tokenizer.render(chat, variables))
    return template_rule(tokenizer, variables, skip).of(prompt)


def next_prompt(tokenizer: ChatTokenizer, answer: str, **variables: Any) -> list[int]:
    said = {"role": "assistant", "content": answer}
    asked = {"role": "user", "content": "Go on"}
    return ids(tokenizer, tokenizer.render([*CHAT, said, asked], variables))


def num_equal(one: list[int], other: list[int]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def test_a_template_that_strips_thinking_gives_the_ids_of_its_marks() -> None:
    tokenizer = served(STRIPS)
    opening, closing = (ids(tokenizer, mark) for mark in MARKS)
    assert len(opening) == 1
    assert rule(tokenizer) == StripRule(opens=tuple(opening), closes=tuple(closing))


def test_marks_without_a_token_of_their_own_are_known_by_the_ids_that_write_them() -> None:
    tokenizer = served(STRIPS, shown=("unrelated",))
    found = rule(tokenizer)
    assert found is not None
    assert tokenizer.decode(found.opens, skip_special_tokens=False) == "<think>"
    assert tokenizer.decode(found.closes, skip_special_tokens=False) == "</think>"


def test_the_next_prompt_leaves_the_answer_where_the_block_opens() -> None:
    tokenizer = served(STRIPS)
    prompt = ids(tokenizer, tokenizer.render(CHAT, {}))
    answer = "<think>\nHm, well\n</think>\n\nHello"
    assert num_equal(prompt + ids(tokenizer, answer), next_prompt(tokenizer, answer)) == len(prompt)


@pytest.mark.parametrize("cut", ["<think>\nHm, we", "Hello, I am"])
def test_the_next_prompt_repeats_an_answer_without_a_closed_block(cut: str) -> None:
    tokenizer = served(STRIPS)
    prompt = ids(tokenizer, tokenizer.render(CHAT, {}))
    whole = prompt + ids(tokenizer, cut)
    assert next_prompt(tokenizer, cut)[: len(whole)] == whole


def test_a_prompt_that_opens_the_block_is_kept_up_to_there() -> None:
    tokenizer = served(OPENS)
    prompt = ids(tokenizer, tokenizer.render(CHAT, {}))
    found = rule(tokenizer)
    assert found == StripRule(kept_prompt=len(prompt) - len(ids(tokenizer, "<think>\n")))
    for answer in ("Hm\n</think>\n\nHello", "Hello", "Hm, wel"):
        equal = num_equal(prompt + ids(tokenizer, answer), next_prompt(tokenizer, answer))
        assert equal == found.kept_prompt


@pytest.mark.parametrize(("thinks", "num_lost"), [(True, 1), (False, None)])
def test_a_prompt_that_ends_much_like_history_is_compared_by_tokens(
    thinks: bool, num_lost: int | None
) -> None:
    tokenizer = served(HALF_OPENS)
    prompt = ids(tokenizer, tokenizer.render(CHAT, {"enable_thinking": thinks}))
    found = rule(tokenizer, enable_thinking=thinks)
    assert found is not None
    expected = None if num_lost is None else len(prompt) - num_lost
    assert found.kept_prompt == expected
    repeated = num_equal(prompt, next_prompt(tokenizer, "Hello", enable_thinking=thinks))
    assert repeated == (len(prompt) if expected is None else expected)


@pytest.mark.parametrize("template", [EMPTIES, PUTS_BEFORE], ids=["empties", "puts before"])
def test_an_empty_block_in_history_is_not_the_thinking_that_was_there(template: str) -> None:
    tokenizer = served(template)
    assert rule(tokenizer) == StripRule(opens=tuple(ids(tokenizer, "<think>")))


def test_thinking_switched_off_in_the_prompt_is_a_prompt_that_is_not_kept() -> None:
    tokenizer = served(STRIPS)
    prompt = ids(tokenizer, tokenizer.render(CHAT, {"enable_thinking": False}))
    found = rule(tokenizer, enable_thinking=False)
    assert found is not None and found.kept_prompt is not None
    assert tokenizer.decode(prompt[found.kept_prompt :], skip_special_tokens=False) == (
        "<think>\n\n</think>\n\n"
    )
    following = next_prompt(tokenizer, "Hello", enable_thinking=False)
    assert num_equal(prompt, following) == found.kept_prompt


@pytest.mark.parametrize(
    "template", [KEEPS, KEEPS_OPENED, REWRITES], ids=["keeps", "keeps opened", "rewrites"]
)
def test_a_template_that_keeps_all_or_rewrites_the_question_gives_no_rule(template: str) -> None:
    assert rule(served(template)) is None


def test_a_template_that_strips_only_one_way_of_writing_it_gives_no_rule() -> None:
    tokenizer = served(STRIPS.replace("'</think>'", "'\n</think>\n\n'"))
    written = "<think>\nHm\n</think>\n\nHello"
    assert "Hm" not in tokenizer.decode(next_prompt(tokenizer, written), skip_special_tokens=False)
    assert rule(tokenizer) is None


def test_a_template_that_refuses_to_be_asked_gives_no_rule() -> None:
    assert template_rule(served(REFUSES), {}, True) == TemplateRule()
    assert template_rule(served(REFUSES_THINKING), {}, True) == TemplateRule()


def test_marks_that_clients_never_see_are_stripped_whatever_the_template_does() -> None:
    tokenizer = served(KEEPS, hidden=MARKS)
    (opening,) = ids(tokenizer, "<think>")
    assert rule(tokenizer) == StripRule(opens=(opening,))
    assert rule(tokenizer, skip=False) is None


@pytest.mark.parametrize("pair", MARKERS)
def test_every_known_mark_is_found_in_a_template_that_strips_it(pair: tuple[str, str]) -> None:
    template = STRIPS.replace("</think>", pair[1]).replace("<think>", pair[0])
    tokenizer = served(template, shown=pair)
    found = rule(tokenizer)
    assert found is not None
    assert found.opens == tuple(ids(tokenizer, pair[0]))


def test_with_tools_there_is_no_rule(threads: TokenizerThreads) -> None:
    tokenizer, rules = served(STRIPS), StripRules(threads)
    assert asked(rules, tokenizer, [1], {"tools": []}) is not None
    assert asked(rules, tokenizer, [1], {"tools": [{"type": "function"}]}) is None


def test_a_prompt_that_ends_otherwise_than_the_template_said_has_no_rule() -> None:
    tokenizer = served(OPENS)
    assert template_rule(tokenizer, {}, True).of(ids(tokenizer, "Hi")) is None


def test_a_template_is_asked_once_for_each_set_of_variables(threads: TokenizerThreads) -> None:
    tokenizer, rules = served(STRIPS), StripRules(threads)
    rendered: list[Any] = []
    render = tokenizer.render
    tokenizer.render = lambda *args: rendered.append(args) or render(*args)  # type: ignore
    first = asked(rules, tokenizer, [1], {"a": 1, "b": 2})
    num_rendered = len(rendered)
    assert first is not None
    assert asked(rules, tokenizer, [2], {"b": 2, "a": 1}) == first
    assert len(rendered) == num_rendered > 0
    asked(rules, tokenizer, [1], {"a": 2})
    assert len(rendered) == 2 * num_rendered


def test_what_a_request_brings_for_its_own_prompt_is_no_new_question(
    threads: TokenizerThreads,
) -> None:
    tokenizer, rules = served(STRIPS), StripRules(threads)
    first = asked(rules, tokenizer, [1], {"a": True})
    for number in range(3):
        brought = {"documents": [{"title": "t", "text": f"{number}"}], "notes": f"{number}" * 201}
        assert asked(rules, tokenizer, [1], {"a": True, **brought}) == first is not None
    assert len(rules._known) == 1
    asked(rules, tokenizer, [1], {"a": True, "mode": "0" * 200})
    assert len(rules._known) == 2


def test_whether_special_tokens_are_shown_is_part_of_the_question(
    threads: TokenizerThreads,
) -> None:
    tokenizer, rules = served(KEEPS, hidden=MARKS), StripRules(threads)
    assert asked(rules, tokenizer, [1], {}, skip=True) is not None
    assert asked(rules, tokenizer, [1], {}, skip=False) is None


def test_the_memory_of_variables_is_bounded(threads: TokenizerThreads) -> None:
    tokenizer, rules = served(REFUSES), StripRules(threads)
    for number in range(100):
        asked(rules, tokenizer, [1], {"a": number})
    assert len(rules._known) == 64


def test_a_tokenizer_that_fails_gives_no_rule_and_no_error(threads: TokenizerThreads) -> None:
    class Broken:
        def render(self, *args: Any) -> str:
            return "Which of the two is it"

    assert asked(StripRules(threads), Broken(), [1], {}) is None
    closed = TokenizerThreads(1)
    closed.close()
    assert asked(StripRules(closed), served(STRIPS), [1], {}) is None
