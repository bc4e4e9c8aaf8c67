"""Chats with sampled answers: what is said, and how pages are counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from kvloop.benchmark.driver.api import Exchange
from kvloop.benchmark.driver.bad_answer import BadAnswer
from kvloop.benchmark.driver.stream import StreamedAnswer
from kvloop.benchmark.reuse.account import Account, to_json, why
from kvloop.benchmark.reuse.hold import parse_turn
from kvloop.benchmark.reuse.load import ChatLoad
from kvloop.benchmark.reuse.tables import show, verdict
from kvloop.benchmark.reuse.turn import Turn, count_pages, num_equal
from kvloop.benchmark.sample import Failure, Sources
from kvloop.shared_cache.errors import ConfigError

PAGE = 16


def turn(number: int, prompt: list[int], answer: list[int], hit: int = 0, **fields: Any) -> Turn:
    """One turn of chat 1 whose first `hit` prompt tokens were read from L3."""
    return Turn(
        **{
            "chat": 1,
            "turn": number,
            "prompt_ids": prompt,
            "answer_ids": answer,
            "completion_tokens": len(answer),
            "sources": Sources(computed=len(prompt) - hit, storage=hit, storage_by_decode=hit),
            "prefill_node": "http://p",
            "decode_node": "http://d",
            "fallback": None,
            "ttft_s": 0.1 * number,
            "itl_s": (),
            **fields,
        }
    )


FIRST = turn(1, list(range(20)), list(range(100, 145)))
"""65 tokens, of which 64 have KV: four pages."""
SECOND_PROMPT = [*FIRST.prompt_ids, *FIRST.answer_ids, 7, 8, 9]
SECOND = turn(2, SECOND_PROMPT, list(range(200, 210)), hit=64)
LOAD = ChatLoad(chats=1, turns=2)


def account(*turns: Turn, failures: tuple[Failure, ...] = (), load: ChatLoad = LOAD) -> Account:
    return Account(
        name="run", load=load, page_size=PAGE, turns=turns, failures=failures, duration_s=1.0
    )


def shown(what: Account) -> str:
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(what, console)
    return console.export_text()


# --- the load ---------------------------------------------------------------------------------


def test_equal_seeds_give_equal_chats_and_others_do_not() -> None:
    one, same, other = ChatLoad(seed=1), ChatLoad(seed=1), ChatLoad(seed=2)
    assert one.say(3, 2) == same.say(3, 2) and one.body(3, 2) == same.body(3, 2)
    assert one.say(3, 2) != other.say(3, 2)
    assert one.body(3, 2)["seed"] != one.body(4, 2)["seed"]


def test_answers_are_sampled_and_as_long_as_asked_for() -> None:
    load = ChatLoad(answer_tokens=(70, 75))
    bodies = [load.body(chat, 1) for chat in range(1, 60)]
    assert {body["max_tokens"] for body in bodies} == set(range(70, 76))
    assert all(body["temperature"] == 1.0 and body["ignore_eos"] for body in bodies)
    natural = replace(load, natural_ends=True).body(1, 1)
    assert not natural["ignore_eos"] and natural["skip_special_tokens"]
    assert not bodies[0]["skip_special_tokens"], "text without them is not what was generated"


def test_the_first_turn_reads_every_tier_and_later_ones_what_was_asked_for() -> None:
    load = ChatLoad(pace="rounds", cache="l3_only", history="off")
    assert load.body(1, 1)["kvloop"] == {"cache": "on", "history": "off"}
    assert load.body(1, 2)["kvloop"] == {"cache": "l3_only", "history": "off"}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"chats": 0}, "--chats"),
        ({"turns": 0}, "--turns"),
        ({"at_once": 0}, "--at-once"),
        ({"answer_tokens": (9, 8)}, "--answer"),
        ({"cache": "l3_only"}, "--pace rounds"),
    ],
)
def test_a_wrong_load_is_refused_naming_the_flag(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        ChatLoad(**fields)


# --- counting ---------------------------------------------------------------------------------


def test_the_last_sampled_token_fills_no_page() -> None:
    assert FIRST.full_pages(PAGE) == 4
    assert turn(1, list(range(20)), list(range(44))).full_pages(PAGE) == 3


def test_a_stop_token_was_sampled_though_it_is_not_among_the_answers_ids() -> None:
    stopped = replace(FIRST, completion_tokens=len(FIRST.answer_ids) + 1)
    assert stopped.full_pages(PAGE) == 65 // PAGE
    assert replace(stopped, answer_ids=range(59), completion_tokens=60).full_pages(PAGE) == 4


def test_all_pages_of_the_turn_before_are_found_where_nothing_but_the_rest_is_computed() -> None:
    count = count_pages(FIRST, SECOND, PAGE)
    assert (count.expected, count.found, count.missed, count.has_drifted) == (4, 4, 0, False)


@pytest.mark.parametrize(("hit", "found"), [(0, 0), (63, 3), (48, 3), (66, 4)])
def test_a_page_that_was_computed_again_is_missed(hit: int, found: int) -> None:
    count = count_pages(FIRST, turn(2, SECOND_PROMPT, [1], hit=hit), PAGE)
    assert (count.found, count.missed) == (found, 4 - found)


def test_every_tier_counts_as_found() -> None:
    for name in ("device", "host", "storage", "transfer_skipped"):
        sources = Sources(computed=len(SECOND_PROMPT) - 64, **{name: 64})
        assert count_pages(FIRST, replace(SECOND, sources=sources), PAGE).found == 4


def test_a_prompt_with_other_ids_has_drifted() -> None:
    prompt = list(SECOND_PROMPT)
    prompt[40] = 5
    count = count_pages(FIRST, turn(2, prompt, [1], hit=32), PAGE)
    assert count.has_drifted and count.repeated_tokens == 40
    assert "repeats only 40 of 65 earlier tokens" in why(count, PAGE)


def test_a_miss_that_no_drift_explains_names_none() -> None:
    count = count_pages(FIRST, turn(2, SECOND_PROMPT, [1], hit=32, fallback="x"), PAGE)
    words = why(count, PAGE)
    assert "expected 4 pages, found 2" in words and "repeats" not in words
    assert "fallback x" in words


def test_equal_starts_end_at_the_first_difference_or_the_shorter_end() -> None:
    assert num_equal([1, 2, 3], [1, 2, 4]) == 2
    assert num_equal([1, 2, 3], [1, 2]) == 2
    assert num_equal([], [1]) == 0


# --- the account ------------------------------------------------------------------------------


def test_an_account_is_whole_when_every_turn_found_everything() -> None:
    assert account(SECOND, FIRST).is_whole
    assert "expected 4 pages, found 4, missed 0" in verdict(account(FIRST, SECOND))


def test_an_account_with_a_missed_page_is_not_whole_and_says_where() -> None:
    short = account(FIRST, turn(2, SECOND_PROMPT, [1], hit=48))
    assert not short.is_whole
    assert "missed 1" in verdict(short)
    assert "chat 1, turn 2: expected 4 pages, found 3" in shown(short)


def test_an_account_that_lacks_a_turn_is_not_whole() -> None:
    failure = Failure(conversation=1, turn=2, kind="http_500", message="broken")
    broken = account(FIRST, failures=(failure,))
    assert not broken.is_whole
    assert "chat 1, turn 2: http_500: broken" in shown(broken)


def test_answers_too_short_for_a_proof_are_counted() -> None:
    few = account(FIRST, SECOND)
    assert few.num_short == 2
    assert "2 answers have fewer than four pages" in shown(few)


def test_a_table_shows_each_later_turn_and_where_its_pages_were() -> None:
    text = shown(account(FIRST, SECOND))
    (row,) = [line for line in text.splitlines() if line.startswith("│    2 ")]
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:12] == ["2", "1", "4", "4", "0", "0", "4", "0", "4", "0", "4", "0"]


def test_the_json_has_the_rows_and_each_turn_but_no_ids() -> None:
    data = to_json(account(FIRST, SECOND))
    assert data["is_whole"] and data["rows"][-1]["found_pages"] == 4
    assert data["turns"][1]["sources"]["storage"] == 64
    assert not [key for one in data["turns"] for key in one if key.endswith("_ids")]


# --- answers ----------------------------------------------------------------------------------


def exchange(usage: dict[str, Any], *lines: bytes) -> Exchange:
    answer = StreamedAnswer()
    for line in lines:
        answer.add_block(line + b"\n", 2.0)
    return Exchange(answer=answer, usage=usage, sent_at=1.5, ended_at=3.0)


FIRST_CHUNK = (
    b'data: {"choices": [{"delta": {"content": "a"}, "prompt_token_ids": [1, 2], '
    b'"token_ids": [5]}]}'
)
KVLOOP = {"computed": 2, "prefill_node": "http://p", "decode_node": "http://d", "fallback": None}


def test_a_turn_is_read_from_its_answer() -> None:
    usage = {"prompt_tokens": 2, "completion_tokens": 2, "kvloop": KVLOOP}
    parsed = parse_turn(4, 3, exchange(usage, FIRST_CHUNK))
    assert (parsed.chat, parsed.turn, parsed.prompt_ids, parsed.answer_ids) == (4, 3, [1, 2], [5])
    assert (parsed.completion_tokens, parsed.ttft_s) == (2, 0.5)
    assert parsed.sources.computed == 2 and parsed.prefill_node == "http://p"


def test_an_answer_without_the_accounts_needs_is_a_failure() -> None:
    with pytest.raises(BadAnswer, match=r"usage\.kvloop") as missing:
        parse_turn(1, 1, exchange({"prompt_tokens": 2}, FIRST_CHUNK))
    assert missing.value.kind == "no_kvloop_usage"
    with pytest.raises(BadAnswer, match="return_token_ids"):
        parse_turn(1, 1, exchange({"prompt_tokens": 3, "kvloop": KVLOOP}, FIRST_CHUNK))
