"""What a request says, and the heads of its prompt."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvloop.benchmark.arms import Arm, Segment
from kvloop.benchmark.driver.body import build_body, merge
from kvloop.benchmark.driver.heads import head_of, new_heads
from kvloop.benchmark.driver.target import DROPPABLE, Target
from kvloop.shared_cache.errors import ConfigError


def target(**fields: Any) -> Target:
    return Target(**{"url": "http://h", "model": "m", **fields})


def body(arm: Arm = "on", **fields: Any) -> dict[str, Any]:
    return build_body(target(**fields), [1, 2], output_length=3, salt="s", arm=arm)


def test_token_ids_and_chats_have_their_own_paths_and_fields() -> None:
    ids, chat = target(), target(content="text")
    assert ids.endpoint == "http://h/v1/completions"
    assert chat.endpoint == "http://h/v1/chat/completions"
    assert body()["prompt"] == [1, 2] and body()["return_token_ids"] is True
    text = body(content="text")
    assert text["messages"] == [1, 2] and "return_token_ids" not in text and "prompt" not in text


def test_answers_are_greedy_whole_and_streamed_with_their_usage() -> None:
    said = body()
    assert (said["model"], said["max_tokens"], said["temperature"]) == ("m", 3, 0)
    assert said["ignore_eos"] and said["stream"] and said["stream_options"]["include_usage"]


def test_the_api_key_is_a_bearer_token() -> None:
    assert target(api_key="k").headers == {"Authorization": "Bearer k"}
    assert target().headers == {}


def test_a_salt_goes_into_its_field_unless_it_goes_into_the_prompt_or_is_empty() -> None:
    assert body()["cache_salt"] == "s"
    assert "cache_salt" not in body(salting="prompt")
    assert "cache_salt" not in build_body(target(), [], output_length=1)


def test_dropping_the_salts_field_needs_another_place_for_it() -> None:
    with pytest.raises(ConfigError, match="--salting prompt"):
        target(dropped_fields=frozenset({"cache_salt"}))
    assert target(dropped_fields=frozenset({"cache_salt"}), salting="prompt")


@pytest.mark.parametrize("name", ["ignoreeos", "stream", "prompt"])
def test_a_field_that_is_no_usual_one_or_is_needed_cannot_be_dropped(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--drop-field {name}: must be one of.* ignore_eos"):
        target(dropped_fields=frozenset({"ignore_eos", name}))


def test_every_field_that_may_be_dropped_is_sent_otherwise() -> None:
    whole = build_body(target(), [1], output_length=1, salt="s")
    assert set(whole) >= DROPPABLE
    bare = build_body(target(dropped_fields=DROPPABLE, salting="prompt"), [1], output_length=1)
    assert set(bare) == {"prompt", "stream"}


def test_an_arms_fields_are_kvloops_unless_others_are_given() -> None:
    assert body("bypassed")["kvloop"] == {"cache": "off"}
    assert body("l3_only")["kvloop"] == {"cache": "l3_only"}
    assert "kvloop" not in body("on") and "kvloop" not in body("all_miss")
    mine = body("bypassed", arm_bodies={"bypassed": {"no_cache": 1}})
    assert mine["no_cache"] == 1 and "kvloop" not in mine


def test_extra_fields_win_and_objects_are_merged() -> None:
    said = body("bypassed", extra_body={"kvloop": {"history": "off"}, "max_tokens": 9})
    assert said["kvloop"] == {"cache": "off", "history": "off"} and said["max_tokens"] == 9
    assert merge({"a": {"b": 1}}, {"a": 2}) == {"a": 2}


def test_no_extra_field_makes_an_arm_another() -> None:
    said = body("bypassed", extra_body={"kvloop": {"cache": "on"}})
    assert said["kvloop"] == {"cache": "off"}


def segment(arm: Arm, **fields: Any) -> Segment:
    values = {"step": 0, "round": 0, "conversations": (0,), "salt": "s", **fields}
    return Segment(arm=arm, **values)


def test_every_request_of_all_miss_has_a_head_of_its_own() -> None:
    places = [(c, t, r) for c in range(3) for t in range(3) for r in range(2)]
    names = {head_of(segment("all_miss", round=r), "field", c, t) for c, t, r in places}
    assert len(names) == len(places)


def test_salting_the_prompt_gives_a_segment_one_head_and_the_field_none() -> None:
    assert head_of(segment("on"), "prompt", 1, 2) == head_of(segment("on"), "prompt", 3, 4) == "s"
    assert head_of(segment("on"), "field", 1, 2) is None
    assert head_of(segment("on", salt=""), "prompt", 1, 2) is None


@given(st.lists(st.integers(1000, 1100), min_size=40, max_size=80), st.text(), st.text())
def test_a_head_keeps_the_length_and_all_but_the_start_and_differs_by_name(
    ids: list[int], one: str, other: str
) -> None:
    heads = new_heads(range(1000, 20_000))
    first, second = heads.put(ids, one), heads.put(ids, other)
    assert len(first) == len(ids) and first[10:] == ids[10:]
    assert (first == second) == (one == other)


def test_a_small_vocabulary_has_longer_heads_and_a_short_prompt_is_all_head() -> None:
    heads = new_heads([7, 8])
    put = heads.put([0] * 60, "name")
    assert put[:48].count(0) == 0 and put[48:] == [0] * 12
    assert len(heads.put([1, 2, 3], "name")) == 3


def test_the_first_message_gets_a_word_of_its_own() -> None:
    messages = [{"role": "system", "content": "be"}, {"role": "user", "content": "a"}]
    heads = new_heads(())
    put = heads.put(messages, "x")
    word, rest = put[0]["content"].split()
    assert len(word) == 12 and rest == "be" and put[1:] == messages[1:]
    assert messages[0]["content"] == "be"
    assert put != heads.put(messages, "y")
