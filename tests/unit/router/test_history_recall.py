"""What any router remembers of a chat, through records that it shares with the others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from chat_tokenizers import byte_level
from hypothesis import given, settings
from hypothesis import strategies as st
from recalled_chats import Router, Shelf, said, user

from kvloop.router.chat import _opening
from kvloop.router.history_recall import STRANGE_S, Strangers
from kvloop.router.history_record import MAX_OLDER_TOKENS, DamagedRecord
from kvloop.router.history_store import NoAnswer
from kvloop.router.openai_types import ChatRequest

WORDS = byte_level().vocab_size
ANSWER = [n for byte in b"the cat" for n in range(2, 258) if byte_level().token_bytes(n) == [byte]]
HI = [user("Hi")]
AFTER = [*HI, said("the cat"), user("on")]


def two_routers() -> tuple[Router, Router, Shelf]:
    shelf = Shelf()
    return Router(byte_level(), shelf), Router(byte_level(), shelf), shelf


def long_chat(router: Router, turns: int, answer: list[int]) -> tuple[list[Any], list[int]]:
    """The messages of the next turn, and the ids of all turns before it."""
    messages: list[Any] = [*HI]
    before: list[int] = []
    for _ in range(turns):
        before = router.answer(messages, answer)
        messages += [said(router.shown(answer)), user("on")]
    return messages, before


def test_another_router_finds_the_ids_of_an_answer_once_and_then_knows_them() -> None:
    one, other, shelf = two_routers()
    before = one.answer(HI, ANSWER)
    for _ in range(2):
        opening = other.open(AFTER)
        assert opening.prompt.ids[: len(before)] == before
        assert opening.prompt.drift == "repaired"
    assert shelf.num_reads == 1
    assert other.count("history_lookups", "shared") == 1
    assert other.count("history_lookups", "memory") == 1


@settings(deadline=None, max_examples=50)
@given(
    turns=st.lists(
        st.tuples(st.integers(0, 2), st.lists(st.integers(2, WORDS - 1), max_size=20)),
        min_size=2,
        max_size=6,
    )
)
def test_whichever_router_serves_a_turn_the_ids_of_those_before_are_repeated(
    turns: list[tuple[int, list[int]]],
) -> None:
    shelf = Shelf()
    routers = [Router(byte_level(), shelf) for _ in range(3)]
    messages: list[Any] = [*HI]
    before: list[int] = []
    for number, answer in turns:
        router = routers[number]
        prompt = router.open(messages).prompt
        assert prompt.ids[: len(before)] == before
        rendered = router.tokenizer.render(messages, {})
        assert router.tokenizer.decode(prompt.ids, skip_special_tokens=False) == rendered
        before = router.answer(messages, answer)
        messages += [said(router.shown(answer)), user("on")]


def test_a_chat_of_many_short_turns_takes_a_new_router_one_read() -> None:
    one, other, shelf = two_routers()
    messages, before = long_chat(one, 20, ANSWER)
    shelf.num_reads = 0
    assert other.open(messages).prompt.ids[: len(before)] == before
    assert shelf.num_reads == 1


def test_a_chat_of_long_answers_is_followed_from_record_to_record() -> None:
    one, other, shelf = two_routers()
    messages, before = long_chat(one, 5, ANSWER * (MAX_OLDER_TOKENS // len(ANSWER)))
    shelf.num_reads = 0
    assert other.open(messages).prompt.ids[: len(before)] == before
    assert shelf.num_reads == 5


def test_a_router_that_knows_the_turns_before_reads_the_new_one_only() -> None:
    one, other, shelf = two_routers()
    long_answer = ANSWER * (MAX_OLDER_TOKENS // len(ANSWER))
    messages, _ = long_chat(one, 3, long_answer)
    other.open(messages)
    before = one.answer(messages, long_answer)
    shelf.num_reads = 0
    messages = [*messages, said(one.shown(long_answer)), user("on")]
    assert other.open(messages).prompt.ids[: len(before)] == before
    assert shelf.num_reads == 1


def test_a_router_with_little_memory_reads_what_it_forgot() -> None:
    shelf = Shelf()
    router = Router(byte_level(), shelf, max_tokens=1)
    messages, before = long_chat(router, 4, ANSWER)
    assert router.open(messages).prompt.ids[: len(before)] == before
    assert router.count("history_lookups", "memory") == 0


def test_a_hole_in_the_chain_of_records_is_a_miss() -> None:
    one, other, shelf = two_routers()
    messages, _ = long_chat(one, 4, ANSWER * (MAX_OLDER_TOKENS // len(ANSWER)))
    del shelf.values[next(iter(shelf.values))]
    opening = other.open(messages)
    rendered = other.tokenizer.render(messages, {})
    assert opening.prompt.ids == other.tokenizer.encode(rendered, add_special_tokens=False)
    assert other.count("history_lookups", "miss") == 1


def test_an_answer_of_someone_elses_after_ours_hides_ours_not() -> None:
    one, other, _ = two_routers()
    before = one.answer(HI, ANSWER)
    messages = [*AFTER, said("not of ours"), user("on")]
    assert other.open(messages).prompt.ids[: len(before)] == before


@pytest.mark.parametrize("error", [NoAnswer("away"), DamagedRecord("bits")])
def test_a_store_at_fault_costs_the_ids_and_nothing_else(error: Exception) -> None:
    one, other, shelf = two_routers()
    one.answer(HI, ANSWER)
    shelf.error = error
    opening = other.open(AFTER)
    rendered = other.tokenizer.render(AFTER, {})
    assert opening.prompt.ids == other.tokenizer.encode(rendered, add_special_tokens=False)
    assert other.count("history_lookups", "fault") == 1


def test_a_store_at_fault_leaves_what_the_router_knows_itself() -> None:
    one, _, shelf = two_routers()
    before = one.answer(HI, ANSWER)
    shelf.error = NoAnswer("away")
    messages = [*AFTER, said("elsewhere"), user("on")]
    assert one.open(messages).prompt.ids[: len(before)] == before


def test_any_bytes_in_a_record_leave_the_prompts_text_as_it_is() -> None:
    one, other, shelf = two_routers()
    one.answer(HI, ANSWER)
    (name,) = shelf.values
    value = shelf.values[name]
    rendered = other.tokenizer.render(AFTER, {})
    for place in range(0, len(value), 3):
        shelf.values[name] = value[:place] + bytes([value[place] ^ 0x55]) + value[place + 1 :]
        ids = other.open(AFTER).prompt.ids
        assert other.tokenizer.decode(ids, skip_special_tokens=False) == rendered
    assert other.count("history_lookups", "shared") == 0


@pytest.mark.parametrize("how", [{"use_history": False}, {"use_storage": False}])
def test_a_chat_with_history_or_cache_off_neither_reads_nor_writes_records(how: Any) -> None:
    one, other, shelf = two_routers()
    one.answer(HI, ANSWER, **how)
    assert not shelf.values
    one.answer(HI, ANSWER)
    other.open(AFTER, **how)
    assert shelf.num_reads == 0


def test_a_chat_with_the_cache_off_repeats_what_this_router_knows() -> None:
    one, _, _ = two_routers()
    before = one.answer(HI, ANSWER, use_storage=False)
    assert one.open(AFTER, use_storage=False).prompt.ids[: len(before)] == before


def test_a_chat_without_an_answer_asks_for_nothing() -> None:
    one, _, shelf = two_routers()
    one.open([{"role": "system", "content": "Be kind"}, *HI])
    assert shelf.num_reads == 0
    results = ("memory", "shared", "miss", "fault")
    assert sum(one.count("history_lookups", result) for result in results) == 0


def test_records_of_one_seed_are_none_of_anothers() -> None:
    one, other, _ = two_routers()
    one.answer(HI, ANSWER, seed=b"a")
    other.open(AFTER, seed=b"b")
    assert other.count("history_lookups", "miss") == 1


def test_a_chat_of_strangers_answers_is_given_up_after_some_reads() -> None:
    one, _, shelf = two_routers()
    one.open([*HI, *([said("elsewhere"), user("on")] * 50)])
    assert shelf.num_reads == 4


def test_an_answer_that_no_router_knew_is_not_looked_for_again_at_once() -> None:
    now = [100.0]
    strangers = Strangers(lambda: now[0])
    assert not strangers.has(b"x")
    strangers.add(b"x")
    assert strangers.has(b"x") and not strangers.has(b"y")
    now[0] += STRANGE_S
    assert not strangers.has(b"x")


def test_strangers_are_bounded_and_the_oldest_go() -> None:
    strangers = Strangers(lambda: 0.0)
    for number in range(5000):
        strangers.add(number.to_bytes(4, "big"))
    assert not strangers.has((0).to_bytes(4, "big")) and strangers.has((4999).to_bytes(4, "big"))


def test_examples_before_every_question_are_looked_for_once() -> None:
    one, _, shelf = two_routers()
    for number in range(5):
        one.open([*AFTER, user(f"question {number}")])
    assert shelf.num_reads == 1
    assert one.count("history_lookups", "miss") == 5


@pytest.mark.parametrize(
    ("options", "use_history", "use_storage"),
    [
        (None, True, True),
        ({"history": "off"}, False, True),
        ({"cache": "off"}, True, False),
        ({"cache": "l3_only"}, True, True),
    ],
)
async def test_a_requests_options_say_what_its_chat_may_use(
    options: Any, use_history: bool, use_storage: bool
) -> None:
    asked: dict[str, Any] = {}

    async def opened(*_: Any, **how: Any) -> None:
        asked.update(how)

    service: Any = SimpleNamespace(
        model=SimpleNamespace(tokenizer=byte_level()), chats=SimpleNamespace(open=opened)
    )
    body = ChatRequest.model_validate({"model": "m", "messages": HI, "kvloop": options})
    await _opening(service, body, None, HI)
    assert asked == {"use_history": use_history, "use_storage": use_storage}


def test_a_router_without_a_store_remembers_for_itself() -> None:
    router = Router(byte_level())
    before = router.answer(HI, ANSWER)
    assert router.open(AFTER).prompt.ids[: len(before)] == before
    assert router.chats.status() == {"answers": 1, "shared": None}
