"""Numbers out of samples."""

from statistics import quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvloop.benchmark.sample import Sample, Sources
from kvloop.benchmark.stats import percentile, spread_ms, summarize


def sample(**changes: object) -> Sample:
    fields: dict[str, object] = {
        "conversation": 0,
        "turn": 1,
        "sent_at": 0.0,
        "ended_at": 1.0,
        "queued_s": 0.0,
        "ttft_s": 0.5,
        "itl_s": (0.1,),
        "prompt_tokens": 100,
        "completion_tokens": 2,
        "reusable_tokens": 0,
        "cached_tokens": 0,
        "sources": None,
        "fallback": None,
    }
    return Sample(**{**fields, **changes})  # type: ignore[arg-type]


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
