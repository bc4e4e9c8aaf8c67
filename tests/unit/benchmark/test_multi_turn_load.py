"""Conversations in drawn words."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvloop.benchmark.workloads.agent import Agent
from kvloop.benchmark.workloads.long_doc import LongDocument
from kvloop.benchmark.workloads.multi_turn import MultiTurn
from kvloop.benchmark.workloads.plan import Workload, num_requests
from kvloop.benchmark.workloads.scripted import Scripted
from kvloop.shared_cache.errors import ConfigError


def said(load: Workload) -> list[list[tuple[int, ...]]]:
    """By conversation and turn."""
    return [
        [load.say(number, turn).ids for turn in range(1, len(one.turns) + 1)]
        for number, one in enumerate(load.conversations)
    ]


ranges = st.tuples(st.integers(1, 6), st.integers(0, 6)).map(lambda two: (two[0], sum(two)))
loads = st.builds(
    MultiTurn,
    num_conversations=st.integers(1, 4),
    turns=ranges.map(lambda two: (two[0] + 1, two[1] + 1)),
    request_length=ranges,
    first_length=st.none() | ranges,
    output_length=ranges,
    system_prompts=st.integers(0, 3),
    system_length=ranges,
    branches=st.integers(0, 2),
    think_s=st.sampled_from([0.0, 1.5, (1.0, 2.0)]),
    seed=st.integers(0, 99),
)


@given(loads)
def test_equal_flags_and_seeds_give_equal_loads(load: MultiTurn) -> None:
    assert replace(load).conversations == load.conversations
    assert said(replace(load)) == said(load)
    assert said(replace(load, seed=load.seed + 1)) != said(load)


@given(loads)
def test_everything_drawn_lies_in_its_range(load: MultiTurn) -> None:
    for number, one in enumerate(load.conversations):
        before = one.branch.turns if one.branch else 0
        assert load.turns[0] <= before + len(one.turns) <= load.turns[1]  # type: ignore[index]
        for turn, asked in enumerate(one.turns, start=before + 1):
            low, high = load.request_length  # type: ignore[misc]
            if turn == 1:
                low, high = load.first_length or (low, high)  # type: ignore[misc]
            if turn == 1 and load.system_prompts:
                low, high = low + load.system_length[0], high + load.system_length[1]  # type: ignore[index]
            assert low <= len(load.say(number, turn - before).ids) <= high
            assert load.output_length[0] <= asked.output_length <= load.output_length[1]  # type: ignore[index]


def test_lengths_and_turns_of_a_range_differ_from_draw_to_draw() -> None:
    load = MultiTurn(
        num_conversations=9, turns=(2, 5), request_length=(3, 40), output_length=(1, 30)
    )
    assert {len(one.turns) for one in load.conversations} == {2, 3, 4, 5}
    assert all(len({len(ids) for ids in turns}) > 1 for turns in said(load))
    assert len({turn.output_length for one in load.conversations for turn in one.turns}) > 5


def test_a_conversation_is_the_same_however_many_others_there_are() -> None:
    few, many = (
        MultiTurn(num_conversations=2, turns=(1, 6)),
        MultiTurn(num_conversations=5, turns=(1, 6)),
    )
    assert many.conversations[:2] == few.conversations
    assert said(many)[:2] == said(few)


def test_think_time_changes_nothing_that_is_said() -> None:
    load = MultiTurn(turns=(2, 5), request_length=(3, 9))
    assert said(replace(load, think_s=2.0)) == said(load)


def test_no_two_turns_say_the_same() -> None:
    load = MultiTurn(num_conversations=4, turns=5, request_length=8, branches=1)
    every = [ids for turns in said(load) for ids in turns]
    assert len(set(every)) == len(every) == num_requests(load) == 4 * (5 + 4)


def test_there_is_thinking_before_every_request_but_a_first() -> None:
    load = MultiTurn(turns=4, think_s=(1.0, 2.0), branches=1, branch_turn=2)
    for one in load.conversations:
        times = [turn.think_s for turn in one.turns]
        if one.branch is None:
            assert times.pop(0) == 0.0
        assert times and all(1.0 <= time <= 2.0 for time in times)


def test_a_mean_think_time_is_drawn_exponentially() -> None:
    load = MultiTurn(num_conversations=300, turns=6, think_s=3.0)
    times = [turn.think_s for one in load.conversations for turn in one.turns[1:]]
    assert sum(times) / len(times) == pytest.approx(3.0, rel=0.1)
    assert max(times) > 9.0


def test_conversations_take_the_system_prompts_in_turn() -> None:
    load = MultiTurn(num_conversations=5, system_prompts=2, system_length=6, request_length=4)
    heads = [load.say(number, 1).ids[:6] for number in range(5)]
    assert heads[0] == heads[2] == heads[4] != heads[1] == heads[3]
    assert {len(load.say(number, 1).ids) for number in range(5)} == {10}
    assert {len(load.say(number, 2).ids) for number in range(5)} == {4}


def test_system_prompts_may_differ_in_length() -> None:
    load = MultiTurn(num_conversations=30, system_prompts=30, system_length=(5, 7))
    assert {len(load.say(number, 1).ids) - 250 for number in range(30)} == {5, 6, 7}


def test_in_text_the_system_prompt_is_a_message_of_its_own() -> None:
    load = MultiTurn(content="text", system_prompts=1, system_length=6, request_length=4)
    one, two = load.say(0, 1).messages, load.say(1, 1).messages
    assert [(message.role, len(message.content.split())) for message in one] == [
        ("system", 6),
        ("user", 4),
    ]
    assert one[0] == two[0] and one[1] != two[1]
    assert [message.role for message in load.say(0, 2).messages] == ["user"]
    assert load.say(0, 1).ids == ()


def test_branches_leave_their_conversation_where_asked_in_words_of_their_own() -> None:
    load = MultiTurn(num_conversations=2, turns=5, branches=2, branch_turn=3)
    branches = [one.branch for one in load.conversations]
    assert [branch and (branch.parent, branch.turns) for branch in branches] == [
        None, (0, 3), (0, 3), None, (3, 3), (3, 3)
    ]  # fmt: skip
    assert [len(one.turns) for one in load.conversations] == [5, 2, 2, 5, 2, 2]
    next_words = [load.say(0, 4).ids, load.say(1, 1).ids, load.say(2, 1).ids]
    assert len(set(next_words)) == 3


@given(loads)
def test_a_branch_has_a_parent_before_it_with_the_turns_it_begins_with(load: MultiTurn) -> None:
    for number, one in enumerate(load.conversations):
        if one.branch is not None:
            parent = load.conversations[one.branch.parent]
            assert one.branch.parent < number and parent.branch is None
            assert 1 <= one.branch.turns < len(parent.turns)
            assert len(one.turns) >= 1


def test_a_first_turn_may_be_longer() -> None:
    load = MultiTurn(turns=3, request_length=4, first_length=40)
    assert [len(ids) for ids in said(load)[0]] == [40, 4, 4]


@pytest.mark.parametrize("content", ["token-ids", "text"])
def test_warming_up_says_what_no_conversation_says(content: Any) -> None:
    load = MultiTurn(content=content, system_prompts=1, system_length=8, request_length=8)
    warm = [load.say(-1, 1), load.say(-2, 1)]
    measured = [load.say(number, 1) for number in range(4)]
    if content == "text":
        parts = [[message.content for message in one.messages] for one in warm + measured]
    else:
        parts = [[one.ids[:8], one.ids[8:]] for one in warm + measured]  # type: ignore[list-item]
    for position in (0, 1):
        heads = [one[position] for one in parts]
        assert len({*heads[:2]}) == 2 and not {*heads[:2]} & {*heads[2:]}


def test_ids_stay_in_their_range() -> None:
    load = MultiTurn(request_length=500, id_range=(7, 9), system_prompts=1)
    assert set(load.say(0, 1).ids) == {7, 8}


def test_the_report_gets_the_flags_and_what_they_came_to() -> None:
    load = MultiTurn(turns=(2, 3), request_length=10, output_length=4, branches=1, think_s=2.0)
    words = load.describe()
    assert words["kind"] == load.kind == "multi-turn"
    assert words["turns"] == [2, 3] and words["branches"] == 1 and words["think_s"] == 2.0
    assert words["requests"] == num_requests(load)
    longest = max(
        len(one.turns) + (one.branch.turns if one.branch else 0) for one in load.conversations
    )
    assert words["longest_with_answer"] == longest * 14


@pytest.mark.parametrize(
    ("field", "value", "flag"),
    [
        ("num_conversations", 0, "--conversations"),
        ("turns", 0, "--turns"),
        ("turns", (3, 2), "--turns"),
        ("request_length", -1, "--request-length"),
        ("first_length", 0, "--first-length"),
        ("output_length", (0, 3), "--output-length"),
        ("system_prompts", -1, "--system-prompts"),
        ("system_length", 0, "--system-length"),
        ("branches", -1, "--branches"),
        ("think_s", -1.0, "--think-s"),
        ("id_range", (5, 5), "--id-range"),
    ],
)
def test_a_wrong_value_names_its_flag(field: str, value: Any, flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        MultiTurn(**{field: value})


@pytest.mark.parametrize(
    ("load", "needed", "flag"),
    [
        (MultiTurn(turns=3, request_length=10, output_length=4), 42, "--turns"),
        (MultiTurn(turns=3, request_length=9, output_length=5, branches=1), 42, "--turns"),
        (
            LongDocument(document_length=50, questions=2, question_length=5),
            188,
            "--document-length",
        ),
        (Agent(tools_length=9, task_length=1, steps=1, output_length=7), 17, "--steps"),
    ],
)
def test_a_load_that_a_model_cannot_take_names_what_to_lower(
    load: Scripted, needed: int, flag: str
) -> None:
    load.check_context(None)
    load.check_context(needed)
    with pytest.raises(ConfigError, match=rf"{needed} tokens, the model takes 16: lower .*{flag}"):
        load.check_context(16)


@pytest.mark.parametrize("seed", range(5))
def test_the_context_needed_is_that_of_the_longest_family_member(seed: int) -> None:
    load = MultiTurn(
        num_conversations=1, turns=4, request_length=(1, 99), branches=5, branch_turn=2, seed=seed
    )
    root, *branches = (
        [line.length + line.turn.output_length for line in script.lines] for script in load.scripts
    )
    longest = max(sum(root), *(sum(root[:2]) + sum(own) for own in branches))
    assert load.context_needed == longest == load.describe()["longest_with_answer"]


@pytest.mark.parametrize("turn", [0, 2, 3])
def test_a_branch_must_leave_where_every_conversation_goes_on(turn: int) -> None:
    with pytest.raises(ConfigError, match=r"--branch-turn .* below the fewest --turns \(2\)"):
        MultiTurn(turns=(2, 5), branches=1, branch_turn=turn)
    MultiTurn(turns=(2, 5), branches=0, branch_turn=turn)
