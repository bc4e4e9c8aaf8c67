"""What driving cost, and when that is called a bottleneck."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvloop.benchmark.arms import Arm
from kvloop.benchmark.driver.core_wait import core_wait_s, wait_share
from kvloop.benchmark.driver.cost import judge_cost, most_lag_ms
from kvloop.benchmark.driver.lag import LagHistogram, LagMonitor
from kvloop.benchmark.results.document import Spread
from kvloop.benchmark.sample import Sample


def sample(ttft_s: float, itl_s: float = 0.0, tokens: int = 1, arm: Arm = "on") -> Sample:
    return Sample(
        arm=arm,
        conversation=0,
        turn=1,
        sent_at=0.0,
        ended_at=ttft_s + itl_s * (tokens - 1),
        queued_s=0.0,
        ttft_s=ttft_s,
        itl_s=(),
        prompt_tokens=1,
        completion_tokens=tokens,
        reusable_tokens=0,
        cached_tokens=None,
        sources=None,
        fallback=None,
    )


def lag(p99: float) -> Spread:
    return Spread(mean=p99 / 2, p50=p99 / 2, p90=p99, p99=p99, max=p99)


SLOW = [sample(1.0, 0.05, 11)] * 3
"""Medians of 1 s and of 50 ms: 5 ms of lag show."""


def test_a_tenth_of_the_shorter_median_shows_and_2_ms_at_least() -> None:
    assert most_lag_ms(SLOW) == pytest.approx(5.0)
    assert most_lag_ms([sample(0.2)]) == pytest.approx(20.0)
    assert most_lag_ms([sample(0.004)]) == most_lag_ms([]) == 2.0


def test_the_arm_with_the_shortest_times_is_what_lag_shows_in() -> None:
    fast, slow = [sample(0.03)] * 2, [sample(1.0, arm="all_miss")] * 3
    assert most_lag_ms([*fast, *slow]) == pytest.approx(3.0)


def test_the_words_say_no_more_than_the_lag_tells() -> None:
    some = judge_cost(SLOW, Spread(mean=1, p50=1, p90=2, p99=6, max=9), 0.2, 7)
    assert "The slowest times are longer than the server's." in some.words
    every = judge_cost(SLOW, Spread(mean=6, p50=6, p90=7, p99=8, max=9), 0.2, 7)
    assert "Times are longer than the server's." in every.words
    assert "Times may be longer" in judge_cost(SLOW, lag(1.0), 0.93, 7).words


def test_a_late_loop_is_a_bottleneck_where_that_shows_in_the_times() -> None:
    late, fine = judge_cost(SLOW, lag(5.1), 0.2, 7), judge_cost(SLOW, lag(4.9), 0.2, 7)
    assert late.is_bottleneck and "5.1 ms" in late.words and "5.0 ms" in late.words
    assert not fine.is_bottleneck and "kept up with 7 streams" in fine.words


def test_a_full_core_is_a_bottleneck() -> None:
    full = judge_cost(SLOW, lag(1.0), 0.93, 7)
    assert full.is_bottleneck and "93% of one core" in full.words
    assert (full.cpu_share, full.most_streams) == (0.93, 7)


def test_others_that_kept_it_from_a_core_are_named_where_it_was_late() -> None:
    starved = judge_cost(SLOW, lag(9.0), 0.2, 7, wait_share=0.4)
    assert "waited for a core for 40% of the time" in starved.words
    assert "for a core" not in judge_cost(SLOW, lag(9.0), 0.2, 7, wait_share=0.01).words
    assert not judge_cost(SLOW, lag(1.0), 0.2, 7, wait_share=0.4).is_bottleneck


def test_the_wait_for_a_core_is_a_share_of_the_time_or_unknown() -> None:
    assert wait_share(1.0, 3.0, 8.0) == 0.25
    assert wait_share(None, 3.0, 8.0) is None and wait_share(1.0, 3.0, 0.0) is None
    waited_s = core_wait_s()
    assert waited_s is None or waited_s >= 0.0


def test_a_run_without_lag_or_sample_has_a_verdict_too() -> None:
    assert not judge_cost([], None, 0.0, 0).is_bottleneck
    assert not judge_cost([], lag(50.0), 0.0, 0).is_bottleneck  # there is no time to be wrong


@given(st.lists(st.floats(1e-5, 100.0), min_size=1, max_size=300))
def test_the_histogram_is_right_within_its_classes(lags_s: list[float]) -> None:
    histogram = LagHistogram()
    for one in lags_s:
        histogram.add(one)
    spread = histogram.spread()
    assert spread is not None
    ordered = sorted(lags_s)
    for q, seen in ((0.5, spread.p50), (0.9, spread.p90), (0.99, spread.p99)):
        exact = next(v for n, v in enumerate(ordered, 1) if n >= q * len(ordered)) * 1000
        assert exact * 0.999 <= seen <= exact * 1.024
    assert spread.max == pytest.approx(ordered[-1] * 1000)
    assert spread.mean == pytest.approx(sum(lags_s) / len(lags_s) * 1000)


def test_the_histogram_takes_any_number_and_no_number() -> None:
    histogram = LagHistogram()
    assert histogram.spread() is None
    for extreme in (-1.0, 0.0, 1e9):
        histogram.add(extreme)
    assert histogram.spread() is not None


async def test_a_blocked_loop_is_seen() -> None:
    with LagMonitor() as monitor:
        await asyncio.sleep(0.05)
        time.sleep(0.2)
        await asyncio.sleep(0.05)
    spread = monitor.lags.spread()
    assert spread is not None and spread.max >= 180
    # two thirds of the time the loop was blocked: half of all that came waited for long
    assert spread.p50 >= 20


async def test_a_loop_that_is_late_while_nothing_is_under_way_is_not_counted() -> None:
    busy = False
    with LagMonitor(lambda: busy) as monitor:
        await asyncio.sleep(0.05)
        time.sleep(0.3)
        await asyncio.sleep(0.05)
        assert monitor.lags.spread() is None
        busy = True
        await asyncio.sleep(0.05)
    assert monitor.lags.spread() is not None


async def test_a_loop_that_is_late_just_before_the_last_stream_ends_is_counted() -> None:
    busy = True
    with LagMonitor(lambda: busy) as monitor:
        time.sleep(0.3)
        busy = False
        await asyncio.sleep(0.05)
    spread = monitor.lags.spread()
    assert spread is not None and spread.max >= 250


async def test_what_blocks_the_loop_in_a_pause_is_no_lag() -> None:
    with LagMonitor() as monitor:
        await asyncio.sleep(0.05)
        with monitor.paused():
            time.sleep(0.5)
        await asyncio.sleep(0.05)
    spread = monitor.lags.spread()
    assert spread is not None and spread.max < 400


async def test_after_pauses_the_loop_is_asked_no_more_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noted: list[float] = []
    monkeypatch.setattr(LagHistogram, "add", lambda histogram, lag_s: noted.append(lag_s))
    began = time.monotonic()
    with LagMonitor() as monitor:
        for _ in range(20):
            with monitor.paused():
                pass
        await asyncio.sleep(0.1)
    assert noted and len(noted) <= 2 * (time.monotonic() - began) / 0.01
