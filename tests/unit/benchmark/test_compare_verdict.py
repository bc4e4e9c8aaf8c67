"""A change is a regression when all of its interval is worse than the tolerance."""

import math

import pytest

from kvloop.benchmark.compare.verdict import Tolerances, judge, why
from kvloop.benchmark.results.bootstrap import Interval
from kvloop.shared_cache.errors import ConfigError


def interval(low: float | None, high: float | None, num_units: int = 20) -> Interval:
    return Interval(value=1.0, low=low, high=high, num_units=num_units)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.06, 1.2, "regression"),
        (1.02, 1.2, "maybe worse"),
        (0.99, 1.2, "cannot tell"),
        (0.99, 1.04, "same"),
        (1.01, 1.04, "same"),
        (0.8, 0.99, "maybe better"),
        (0.8, 0.94, "improvement"),
        (0.0, 0.9, "improvement"),
    ],
)
def test_a_time_is_judged_by_where_its_interval_lies(low: float, high: float, verdict: str) -> None:
    assert judge(interval(low, high), "lower", "ratio", 0.05) == verdict


def test_a_rate_is_worse_when_it_is_lower() -> None:
    assert judge(interval(0.8, 0.9), "higher", "ratio", 0.05) == "regression"
    assert judge(interval(1.1, 1.2), "higher", "ratio", 0.05) == "improvement"


def test_twice_as_slow_is_as_far_as_half_as_slow() -> None:
    assert judge(interval(0.51, 0.53), "lower", "ratio", 1.0) == "same"
    assert judge(interval(0.47, 0.49), "lower", "ratio", 1.0) == "improvement"
    assert judge(interval(2.01, 2.1), "lower", "ratio", 1.0) == "regression"


def test_a_share_is_judged_by_points() -> None:
    assert judge(interval(-0.2, -0.06), "higher", "points", 0.05) == "regression"
    assert judge(interval(0.01, 0.04), "lower", "points", 0.05) == "same"
    assert judge(interval(0.06, 0.09), "lower", "points", 0.05) == "regression"


def test_with_a_tolerance_of_zero_any_proven_change_counts() -> None:
    assert judge(interval(1.001, 1.2), "lower", "ratio", 0.0) == "regression"
    assert judge(interval(1.0, 1.0), "lower", "ratio", 0.0) == "same"


def test_an_infinite_tolerance_never_regresses() -> None:
    assert judge(interval(5.0, 9.0), "lower", "ratio", math.inf) == "same"


def test_without_an_interval_nothing_can_be_told_and_it_says_why() -> None:
    few = interval(None, None, num_units=3)
    assert judge(few, "lower", "ratio", 0.05) == "cannot tell"
    assert why(few) == "3 conversations, 5 are needed"
    assert why(interval(None, None)) == "too few draws had a value"
    assert why(interval(0.9, 1.1)) == ""


def test_the_last_rule_that_fits_a_metric_is_its_tolerance() -> None:
    tolerances = Tolerances(default=0.05, rules=(("ttft_*", 0.1), ("ttft_p99*", 0.3)))
    assert tolerances.of("ttft_mean") == 0.1
    assert tolerances.of("ttft_p99_later") == 0.3
    assert tolerances.of("itl_mean") == 0.05


def test_errors_may_rise_by_one_point_unless_a_rule_says_otherwise() -> None:
    assert Tolerances(default=0.2).of("error_share") == 0.01
    assert Tolerances(rules=(("error_share", 0.2),)).of("error_share") == 0.2


def test_rules_that_fit_no_metric_are_told() -> None:
    tolerances = Tolerances(rules=(("ttft_*", 0.1), ("tttf_*", 0.1)))
    assert tolerances.unused({"ttft_mean", "itl_mean"}) == ["tttf_*"]


@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_a_tolerance_below_zero_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="the tolerance of itl_mean must be 0 or above"):
        Tolerances(rules=(("itl_mean", value),))
