"""Numbers out of samples."""

from statistics import quantiles

import pytest
from bench_runs import sample
from hypothesis import given
from hypothesis import strategies as st

from kvloop.benchmark.results.stats import by_length, by_turn, percentile, spread_ms, summarize
from kvloop.benchmark.sample import Sources


@given(st.lists(st.floats(0, 1e6), min_size=2))
def test_percentiles_agree_with_the_standard_library(values: list[float]) -> None:
    ordered = sorted(values)
    cuts = quantiles(ordered, n=100, method="inclusive")
    assert percentile(ordered, 0.5) == pytest.approx(cuts[49])
    assert percentile(ordered, 0.99) == pytest.approx(cuts[98])


def test_the_spread_of_nothing_is_none_and_not_zero() -> None:
    assert spread_ms([]) is None


def test_itl_is_taken_over_tokens_and_not_over_requests() -> None:
    summary = summarize([sample(itl_s=(0.1, 0.1, 0.1)), sample(itl_s=(0.5,))])
    assert summary.itl_ms is not None
    assert summary.itl_ms.mean == pytest.approx(200)


def test_the_hit_rate_is_cached_over_prompt_tokens() -> None:
    summary = summarize([sample(cached_tokens=30), sample(cached_tokens=70, prompt_tokens=300)])
    assert summary.hit_rate == pytest.approx(0.25)


def test_a_hit_rate_that_one_answer_does_not_tell_is_unknown() -> None:
    assert summarize([sample(cached_tokens=30), sample(cached_tokens=None)]).hit_rate is None


def test_sources_are_summed_tier_by_tier() -> None:
    one = Sources(computed=1, storage=2, storage_by_decode=2)
    two = Sources(computed=4, device=8)
    total = summarize([sample(sources=one), sample(sources=two)]).sources
    assert total == Sources(computed=5, device=8, storage=2, storage_by_decode=2)


def test_sources_that_one_answer_does_not_tell_are_unknown() -> None:
    assert summarize([sample(sources=Sources(computed=1)), sample(sources=None)]).sources is None


def test_a_spread_has_the_mean_the_ranks_and_the_most() -> None:
    spread = spread_ms(n / 1000 for n in range(101))
    assert spread is not None
    found = (spread.mean, spread.p50, spread.p90, spread.p99, spread.max)
    assert found == pytest.approx((50, 50, 90, 99, 100))


def test_tpot_is_the_time_after_the_first_token_over_the_tokens_after_it() -> None:
    summary = summarize([sample(ended_at=2.5, ttft_s=0.5, completion_tokens=5)])
    assert summary.tpot_ms is not None and summary.tpot_ms.p50 == pytest.approx(500)


def test_an_answer_of_one_token_has_no_tpot() -> None:
    assert summarize([sample(completion_tokens=1)]).tpot_ms is None


def test_end_to_end_is_from_sending_to_the_end() -> None:
    summary = summarize([sample(sent_at=3.0, ended_at=7.0, queued_s=2.0)])
    assert summary.e2e_ms is not None and summary.e2e_ms.p50 == pytest.approx(4000)
    assert summary.queued_ms is not None and summary.queued_ms.p50 == pytest.approx(2000)


def test_lengths_are_between_powers_of_two() -> None:
    lengths = by_length([sample(prompt_tokens=n) for n in (255, 256, 511, 512)])
    assert [(x.low, x.high, x.summary.requests) for x in lengths] == [
        (128, 256, 1),
        (256, 512, 2),
        (512, 1024, 1),
    ]


def test_each_turn_has_its_summary() -> None:
    turns = by_turn([sample(turn=2), sample(turn=1), sample(turn=2)])
    assert [(t.turn, t.summary.requests) for t in turns] == [(1, 1), (2, 2)]
