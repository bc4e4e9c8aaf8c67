"""How much of a load can be reused, against a count of its prompts' prefixes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvloop.benchmark.workloads.agent import Agent
from kvloop.benchmark.workloads.long_doc import LongDocument
from kvloop.benchmark.workloads.multi_turn import MultiTurn
from kvloop.benchmark.workloads.plan import Workload

FAR_APART = (0, 1 << 60)
"""Drawn from here, no two ids are equal by chance."""


def count(load: Workload) -> tuple[int, int]:
    """Prompt tokens and those of them that are reusable, by a dict of the prefixes seen."""
    seen: dict[tuple[int, ...], bool] = {}
    histories: list[list[tuple[int, ...]]] = []
    tokens = reusable = 0
    answer_id = -1
    for number, one in enumerate(load.conversations):
        mine = list(histories[one.branch.parent][: one.branch.turns]) if one.branch else []
        histories.append(mine)
        for turn, asked in enumerate(one.turns, start=1):
            prompt = (*(mine[-1] if mine else ()), *load.say(number, turn).ids)
            tokens += len(prompt)
            reusable += max(n for n in range(len(prompt) + 1) if n == 0 or prompt[:n] in seen)
            answer = tuple(range(answer_id, answer_id - asked.output_length, -1))
            answer_id -= asked.output_length
            mine.append(prompt + answer)
            with_kv = mine[-1][:-1]
            seen.update((with_kv[:n], True) for n in range(1, len(with_kv) + 1))
    return tokens, reusable


small = st.integers(1, 4) | st.tuples(st.integers(1, 3), st.integers(3, 5))
loads = st.one_of(
    st.builds(
        MultiTurn,
        num_conversations=st.integers(1, 4),
        turns=st.sampled_from([3, (3, 5)]),
        request_length=small,
        output_length=small,
        system_prompts=st.integers(0, 3),
        system_length=small,
        branches=st.integers(0, 2),
        branch_turn=st.integers(1, 2),
        seed=st.integers(0, 99),
        id_range=st.just(FAR_APART),
    ),
    st.builds(
        LongDocument,
        documents=st.integers(1, 3),
        document_length=small,
        questions=st.integers(1, 3),
        question_length=small,
        output_length=small,
        asked=st.sampled_from(["together", "apart"]),
        id_range=st.just(FAR_APART),
    ),
    st.builds(
        Agent,
        agents=st.integers(1, 3),
        steps=st.sampled_from([3, (3, 5)]),
        tools_length=small,
        task_length=small,
        result_length=small,
        output_length=small,
        subagents=st.integers(0, 2),
        subagent_step=st.integers(1, 2),
        id_range=st.just(FAR_APART),
    ),
)


@given(loads)
def test_the_ceiling_is_what_a_dict_of_prefixes_counts(
    load: MultiTurn | LongDocument | Agent,
) -> None:
    ceiling = load.ceiling
    assert ceiling is not None
    assert (ceiling.tokens, ceiling.reusable_tokens) == count(load)


def test_a_history_is_reusable_but_for_the_last_token_of_its_answer() -> None:
    ceiling = MultiTurn(num_conversations=1, turns=2, request_length=10, output_length=4).ceiling
    assert ceiling is not None
    assert (ceiling.tokens, ceiling.reusable_tokens) == (10 + 24, 13)


def test_the_second_that_goes_on_from_an_answer_finds_its_last_token_too() -> None:
    load = MultiTurn(num_conversations=1, turns=2, request_length=10, output_length=4, branches=1)
    assert load.ceiling is not None
    assert load.ceiling.reusable_tokens == 13 + 14


def test_a_shared_system_prompt_is_reusable_from_the_second_conversation_on() -> None:
    load = MultiTurn(
        num_conversations=5, turns=1, request_length=3, system_prompts=2, system_length=7
    )
    assert load.ceiling is not None
    assert load.ceiling.reusable_tokens == 3 * 7


def test_a_document_is_reusable_when_it_is_asked_about_again_apart() -> None:
    load = LongDocument(
        documents=2, document_length=50, questions=3, question_length=5, asked="apart"
    )
    assert load.ceiling is not None
    assert (load.ceiling.tokens, load.ceiling.reusable_tokens) == (6 * 55, 4 * 50)


def test_the_ceiling_says_how_it_was_counted() -> None:
    ceiling = MultiTurn().ceiling
    assert ceiling is not None
    assert "earlier prompt" in ceiling.words and "last token" in ceiling.words
    assert ceiling.rate == pytest.approx(ceiling.reusable_tokens / ceiling.tokens)


@pytest.mark.parametrize("kind", [MultiTurn, LongDocument, Agent])
def test_in_text_nobody_but_the_server_can_count(kind: type[MultiTurn]) -> None:
    assert kind(content="text").ceiling is None
