"""Prompts drawn for a trace's ids share what the ids share, token for token."""

from __future__ import annotations

from itertools import combinations, takewhile

from hypothesis import given
from hypothesis import strategies as st
from made_traces import made_requests, request

from kvloop.benchmark.replay.trace import Prefixes, Request
from kvloop.benchmark.workloads.trace_prompts import Blocks, count_ceiling, draw_prompt
from kvloop.benchmark.workloads.trace_scale import Scale, fit_scale

SIZES = st.integers(1, 40)


def shared(left: list[int], right: list[int]) -> int:
    """Equal items at the start of both."""
    return sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False))
    )


def parents_of(requests: list[Request]) -> dict[int, int | None]:
    prefixes = Prefixes()
    for one in requests:
        prefixes.admit(one.pages)
    return prefixes.parent


def draw_all(
    requests: list[Request], block_tokens: int, vocabulary: int = 19000, seed: int = 0
) -> list[list[int]]:
    blocks = Blocks(parents_of(requests), vocabulary, seed)
    return [draw_prompt(blocks, Scale(block_tokens=block_tokens), one) for one in requests]


@given(requests=made_requests(), size=SIZES, seed=st.integers(0, 3))
def test_prompts_share_exactly_the_prefix_that_their_ids_share(
    requests: list[Request], size: int, seed: int
) -> None:
    prompts = draw_all(requests, size, seed=seed)
    for (one, left), (other, right) in combinations(zip(requests, prompts, strict=True), 2):
        ids = shared(list(one.pages), list(other.pages))
        assert shared(left, right) == min(len(left), len(right), ids * size)


@given(requests=made_requests(), size=SIZES)
def test_the_ceiling_is_what_a_comparison_of_all_prompts_finds(
    requests: list[Request], size: int
) -> None:
    prompts = draw_all(requests, size)
    found = sum(
        max((shared(prompt, earlier) for earlier in prompts[:number]), default=0)
        for number, prompt in enumerate(prompts)
    )
    ceiling = count_ceiling(Scale(block_tokens=size), requests)
    assert (ceiling.tokens, ceiling.reusable_tokens) == (sum(map(len, prompts)), found)
    assert "by the trace's ids" in ceiling.words


@given(requests=made_requests(), size=SIZES)
def test_equal_seeds_give_equal_words_in_the_vocabulary_and_the_scaled_lengths(
    requests: list[Request], size: int
) -> None:
    prompts = draw_all(requests, size, vocabulary=50, seed=1)
    assert prompts == draw_all(requests, size, vocabulary=50, seed=1)
    assert all(0 <= word < 50 for prompt in prompts for word in prompt)
    for one, prompt in zip(requests, prompts, strict=True):
        assert len(prompt) == Scale(block_tokens=size).prompt(one)


def test_other_seeds_give_other_words() -> None:
    requests = [request(0, 1, 2)]
    assert draw_all(requests, 20, seed=1) != draw_all(requests, 20, seed=2)


def test_ids_that_are_more_than_the_words_differ_within_the_first_few() -> None:
    requests = [request(0, number) for number in range(60)]
    prompts = draw_all(requests, 10, vocabulary=4)
    assert len({tuple(prompt[:3]) for prompt in prompts}) == 60
    assert {prompt[0] for prompt in prompts} == {0, 1, 2, 3}


@given(
    requests=made_requests(),
    context=st.integers(60, 9000),
    max_output=st.none() | st.integers(1, 50),
)
def test_scaled_requests_fit_the_context_and_larger_blocks_would_not(
    requests: list[Request], context: int, max_output: int | None
) -> None:
    scale = fit_scale(requests, context=context, block_tokens=None, max_output=max_output)
    assert all(scale.prompt(one) + scale.output(one) <= context for one in requests)
    larger = Scale(block_tokens=scale.block_tokens + 1, max_output=max_output)
    assert scale.block_tokens == 512 or larger.longest(requests) > context
