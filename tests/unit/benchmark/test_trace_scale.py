"""Lengths of a trace, scaled."""

from __future__ import annotations

import pytest
from made_traces import request

from kvloop.benchmark.workloads.trace_scale import Scale, fit_scale
from kvloop.shared_cache.errors import ConfigError

LONG = request(0, *range(10), last=256, output=512)


def test_prompt_and_answer_are_scaled_by_one_factor() -> None:
    scale = Scale(block_tokens=64)
    assert scale.factor == 0.125
    assert (scale.prompt(LONG), scale.output(LONG)) == (9 * 64 + 32, 64)


def test_every_prompt_and_answer_has_a_token_or_more() -> None:
    scale, short = Scale(block_tokens=1), request(0, 1, last=1, output=0)
    assert (scale.prompt(short), scale.output(short)) == (1, 1)


def test_answers_have_at_most_max_output_tokens() -> None:
    assert Scale(block_tokens=512, max_output=40).output(LONG) == 40
    assert Scale(block_tokens=8, max_output=40).output(LONG) == 8


def test_what_fits_is_not_scaled_and_nothing_is_made_longer() -> None:
    scale = fit_scale([LONG], context=100_000, block_tokens=None, max_output=None)
    assert scale.block_tokens == 512


def test_block_tokens_are_taken_as_given_where_they_fit() -> None:
    for context in (None, 700):
        scale = fit_scale([LONG], context=context, block_tokens=32, max_output=None)
        assert scale.block_tokens == 32


def test_what_does_not_fit_or_is_not_known_names_its_flag() -> None:
    with pytest.raises(ConfigError, match=r"--block-tokens 70: .*needs 735 tokens.*at most 66 fit"):
        fit_scale([LONG], context=700, block_tokens=70, max_output=None)
    with pytest.raises(ConfigError, match=r"--context 10: .*has 10 ids.*--longest"):
        fit_scale([LONG], context=10, block_tokens=None, max_output=None)
    with pytest.raises(ConfigError, match="--context: the server does not say"):
        fit_scale([LONG], context=None, block_tokens=None, max_output=None)
