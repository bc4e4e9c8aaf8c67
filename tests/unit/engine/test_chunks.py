"""Chunked prefill shares a step's budget among prompts."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from kvloop.engine.chunks import plan_chunks


@dataclass
class Prompt:
    num_tokens: int
    num_done: int = 0


def test_the_oldest_prompt_goes_first_and_a_cut_chunk_ends_with_a_page() -> None:
    assert plan_chunks([Prompt(20), Prompt(100)], 64, 16) == [20, 32]


def test_a_prompt_that_keeps_the_device_busy_is_computed_alone() -> None:
    waiting = [Prompt(260), Prompt(260), Prompt(20)]
    assert plan_chunks(waiting, 512, 16, enough=128) == [260, 0, 0]


def test_short_prompts_share_a_step_until_it_has_enough() -> None:
    waiting = [Prompt(60), Prompt(100), Prompt(20)]
    assert plan_chunks(waiting, 512, 16, enough=128) == [60, 100, 0]


prompts = st.lists(st.integers(1, 300).map(Prompt), min_size=1)


@given(prompts, st.integers(1, 16))
def test_a_step_stays_in_its_budget_and_always_moves_the_oldest_on(waiting, pages) -> None:
    takes = plan_chunks(waiting, pages * 16, 16)
    assert sum(takes) <= pages * 16 and takes[0] > 0
    for prompt, take in zip(waiting, takes, strict=True):
        assert take == prompt.num_tokens or take % 16 == 0


def test_a_prompt_that_starts_inside_a_page_is_cut_at_a_pages_end_too() -> None:
    assert plan_chunks([Prompt(100, num_done=21)], 32, 16) == [27]
    assert plan_chunks([Prompt(30), Prompt(100, num_done=21)], 40, 16) == [30, 0]
