"""Series that stay, and series that grow."""

from __future__ import annotations

import random

import pytest

from kvloop.benchmark.trend import trend


def test_a_series_that_grows_evenly_has_its_slope() -> None:
    found = trend([0, 10, 20, 30], [5, 7, 9, 11])
    assert found.slope_per_min == pytest.approx(12)
    assert found.grown == pytest.approx(6)
    assert (found.first, found.last, found.max, found.p50) == (5, 11, 11, 8)


def test_a_series_of_bursts_that_end_does_not_grow() -> None:
    draw = random.Random(3)
    values = [draw.choice([0, 0, 0, 40]) for _ in range(600)]
    found = trend(range(600), values)
    assert found.max == 40 and found.p99 == 40
    assert abs(found.grown) < 5


def test_one_burst_at_the_end_is_not_hidden_by_the_median() -> None:
    found = trend(range(100), [0] * 80 + list(range(20)))
    assert found.p50 == 0 and found.grown > 5


def test_samples_of_one_moment_have_no_slope() -> None:
    assert trend([1, 1], [0, 9]).slope_per_min == 0
