"""Numbers of a load, fixed or drawn."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvloop.benchmark.workloads.amounts import (
    check_amount,
    check_number,
    check_seconds,
    draw_amount,
    draw_seconds,
    fewest,
)
from kvloop.shared_cache.errors import ConfigError


def test_a_number_is_always_itself() -> None:
    assert {draw_amount(7, Random(seed)) for seed in range(9)} == {7}
    assert fewest(7) == 7


@given(st.integers(1, 50), st.integers(0, 50), st.integers())
def test_a_range_gives_numbers_between_its_ends(low: int, more: int, seed: int) -> None:
    assert low <= draw_amount((low, low + more), Random(seed)) <= low + more
    assert fewest((low, low + more)) == low


def test_both_ends_of_a_range_are_drawn() -> None:
    assert {draw_amount((2, 4), Random(seed)) for seed in range(60)} == {2, 3, 4}


def test_a_time_is_the_mean_of_exponential_ones() -> None:
    draw = Random(1)
    times = [draw_seconds(2.0, draw) for _ in range(20_000)]
    mean = sum(times) / len(times)
    variance = sum((time - mean) ** 2 for time in times) / len(times)
    assert mean == pytest.approx(2.0, rel=0.05)
    assert variance == pytest.approx(4.0, rel=0.1)


def test_a_range_of_times_is_drawn_evenly() -> None:
    draw = Random(1)
    times = [draw_seconds((1.0, 3.0), draw) for _ in range(20_000)]
    assert 1.0 <= min(times) < 1.1 and 2.9 < max(times) <= 3.0
    assert sum(times) / len(times) == pytest.approx(2.0, rel=0.02)


def test_no_time_is_no_wait() -> None:
    assert draw_seconds(0, Random(1)) == 0.0


@pytest.mark.parametrize("amount", [0, -3, (0, 4), (5, 4)])
def test_a_wrong_amount_names_its_flag_and_what_would_be_right(
    amount: int | tuple[int, int],
) -> None:
    with pytest.raises(ConfigError, match=r"--turns must be .*1 <= LOW <= HIGH"):
        check_amount("--turns", amount)


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan"), (-1.0, 2.0), (3.0, 2.0)])
def test_wrong_seconds_name_their_flag(seconds: float | tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="--think-s must be seconds of 0 or above"):
        check_seconds("--think-s", seconds)


def test_a_number_below_its_least_names_its_flag() -> None:
    check_number("--branches", 0, least=0)
    with pytest.raises(ConfigError, match="--branches must be 0 or above, got -1"):
        check_number("--branches", -1, least=0)
    with pytest.raises(ConfigError, match="--agents must be 1 or above, got 0"):
        check_number("--agents", 0)
