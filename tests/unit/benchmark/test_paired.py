"""Costs by alternating pairs."""

from __future__ import annotations

import random

import pytest

from kvloop.benchmark.paired import Overhead, alternating, overhead


def test_an_overhead_is_the_median_of_the_pairs_ratios() -> None:
    found = overhead([1.1, 2.2, 5.0], [1.0, 2.0, 4.0])
    assert found.median == pytest.approx(0.1)
    assert found.num_pairs == 3
    assert found.low == pytest.approx(0.1) and found.high == pytest.approx(0.25)


def test_equal_ratios_leave_no_doubt() -> None:
    found = overhead([1.03] * 8, [1.0] * 8)
    assert (found.low, found.median, found.high) == pytest.approx((0.03, 0.03, 0.03))


def test_an_interval_holds_the_truth_of_noisy_pairs() -> None:
    draw = random.Random(5)
    costs = [1.02 * draw.gauss(1, 0.02) for _ in range(40)]
    found = overhead(costs, [1.0] * 40)
    assert found.low < 0.02 < found.high
    assert found.high - found.low < 0.04


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-0.01, 0.015, "met: all of the interval is below"),
        (0.01, 0.05, "met: the interval includes it"),
        (0.031, 0.05, r"missed: all of the interval is above, by 1\.1% at least"),
    ],
)
def test_a_bar_is_met_where_the_interval_reaches_it(low: float, high: float, words: str) -> None:
    found = Overhead(median=(low + high) / 2, low=low, high=high, num_pairs=8)
    (said,) = [found.verdict(0.02)]
    assert said.endswith(words.replace("\\", "") + ")")


def test_a_bar_that_is_to_be_met_plainly_is_judged_by_the_median() -> None:
    wide = Overhead(median=0.03, low=-0.1, high=0.1, num_pairs=8)
    assert "missed by 1.0%" in wide.verdict(0.02, plainly=True)
    narrow = Overhead(median=0.01, low=0.0, high=0.1, num_pairs=8)
    assert narrow.verdict(0.02, plainly=True).endswith("met)")


def test_arms_take_turns_in_going_first() -> None:
    assert list(alternating("on", "off", 3)) == [("on", "off"), ("off", "on"), ("on", "off")]
