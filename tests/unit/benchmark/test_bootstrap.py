"""Intervals by drawing conversations again."""

import math
import random
from statistics import NormalDist, fmean, median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvloop.benchmark.results import bootstrap
from kvloop.benchmark.results.bootstrap import Quantile, Ratio, Total
from kvloop.benchmark.results.stats import percentile

Units = list[list[float]]


def made(seed: int, num: int, scale: float = 1.0) -> Units:
    """Conversations of different lengths; each has a pace of its own."""
    chance = random.Random(seed)
    paces = [scale * chance.lognormvariate(0, 0.5) for _ in range(num)]
    return [
        [pace * chance.lognormvariate(0, 0.2) for _ in range(chance.randint(2, 8))]
        for pace in paces
    ]


def ends(interval: bootstrap.Interval) -> tuple[float, float]:
    assert interval.low is not None and interval.high is not None
    return interval.low, interval.high


@given(
    units=st.lists(st.lists(st.floats(0, 1e3), max_size=4), min_size=1, max_size=6),
    share=st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.99, 1.0]),
    data=st.data(),
)
def test_a_quantile_of_a_draw_is_that_of_all_values_drawn(
    units: Units, share: float, data: st.DataObject
) -> None:
    counts = data.draw(st.lists(st.integers(0, 3), min_size=len(units), max_size=len(units)))
    drawn = sorted(
        value for num, values in zip(counts, units, strict=True) for value in values * num
    )
    found = Quantile(units, share)(np.array([counts], dtype=np.int64)).tolist()[0]
    assert found == pytest.approx(percentile(drawn, share)) if drawn else math.isnan(found)


def test_a_quantile_far_from_the_samples_own_is_found_too() -> None:
    units: Units = [[float(n)] for n in range(100)]
    counts = np.zeros((1, 100), dtype=np.int64)
    counts[0, 99] = 5
    assert Quantile(units, 0.5)(counts).tolist() == [99.0]


def test_the_value_is_that_of_what_was_seen() -> None:
    ours, theirs = made(1, 9), made(2, 9, scale=3.0)
    flat = [[v for values in side for v in values] for side in (ours, theirs)]
    by_median = bootstrap.ratio(Quantile(ours, 0.5), Quantile(theirs, 0.5))
    by_mean = bootstrap.ratio(bootstrap.mean(ours), bootstrap.mean(theirs))
    assert by_median.value == pytest.approx(median(flat[0]) / median(flat[1]))
    assert by_mean.value == pytest.approx(fmean(flat[0]) / fmean(flat[1]))
    assert by_mean.num_units == 9


def test_equal_seeds_give_equal_ends_and_others_nearly() -> None:
    side = bootstrap.mean(made(1, 30))
    low, high = ends(bootstrap.single(side, seed=1))
    assert (low, high) == ends(bootstrap.single(side, seed=1))
    assert (low, high) != ends(bootstrap.single(side, seed=2))
    assert ends(bootstrap.single(side, seed=2)) == pytest.approx((low, high), rel=0.05)


def test_the_same_conversations_on_both_sides_make_a_narrower_interval() -> None:
    ours = made(3, 25)
    theirs = [[2 * value for value in values] for values in ours]
    sides = bootstrap.mean(ours), bootstrap.mean(theirs)
    paired, apart = bootstrap.ratio(*sides), bootstrap.ratio(*sides, is_paired=False)
    assert ends(paired) == pytest.approx((0.5, 0.5))
    assert ends(apart)[1] - ends(apart)[0] > 0.1


def test_sides_of_different_sizes_are_compared_when_apart() -> None:
    sides = bootstrap.mean(made(3, 25)), bootstrap.mean(made(4, 12))
    assert bootstrap.ratio(*sides, is_paired=False).num_units == 12


def test_requests_of_one_conversation_count_as_one_draw() -> None:
    paces = [random.Random(n).random() for n in range(20)]
    long: Units = [[pace] * 50 for pace in paces]
    short: Units = [[pace] for pace in paces]
    assert ends(bootstrap.single(bootstrap.mean(long))) == pytest.approx(
        ends(bootstrap.single(bootstrap.mean(short)))
    )


def test_fewer_than_five_conversations_give_no_interval() -> None:
    few = bootstrap.single(bootstrap.mean(made(1, 4)))
    assert (few.low, few.high) == (None, None) and few.value > 0
    assert bootstrap.single(bootstrap.mean(made(1, 5))).low is not None


def test_a_control_of_nothing_gives_no_interval() -> None:
    nothing = bootstrap.ratio(Total([1.0] * 6), Total([0.0] * 6))
    assert (nothing.low, nothing.high) == (None, None)


def test_a_ratio_of_sums_is_no_mean_of_ratios() -> None:
    rate = bootstrap.single(Ratio([10, 0, 0, 0, 0, 0], [10, 90, 90, 90, 90, 90]))
    assert rate.value == pytest.approx(10 / 460)


def test_a_difference_has_its_interval() -> None:
    ours: Units = [[value + 1 for value in values] for values in made(1, 10)]
    gap = bootstrap.difference(bootstrap.mean(ours), bootstrap.mean(made(1, 10)))
    assert (gap.value, *ends(gap)) == pytest.approx((1.0, 1.0, 1.0))


def test_units_that_one_side_lacks_are_left_out_of_pairs() -> None:
    pairs = bootstrap.paired_units({1: [1.0], 2: [2.0]}, {2: [20.0], 3: [30.0]})
    assert pairs == ([[2.0]], [[20.0]])


def test_few_conversations_get_wider_ends_than_plain_percentiles() -> None:
    units = made(5, 6)
    plain = _by_hand(units, rounds=4000, tail=0.025)
    low, high = ends(bootstrap.single(bootstrap.mean(units)))
    assert low < plain[0] and high > plain[1]


@pytest.mark.parametrize(
    ("num", "student"), [(5, 2.7764), (6, 2.5706), (10, 2.2622), (30, 2.0452), (1000, 1.9623)]
)
def test_ends_are_as_far_out_as_students_quantile(num: int, student: float) -> None:
    wide = student * math.sqrt(num / (num - 1))
    assert bootstrap.tail(num) == pytest.approx(NormalDist().cdf(-wide), rel=0.03)


def test_many_conversations_give_the_ends_of_an_independent_bootstrap() -> None:
    units = made(6, 200)
    expected = _by_hand(units, rounds=4000, tail=0.025)
    assert ends(bootstrap.single(bootstrap.mean(units))) == pytest.approx(expected, rel=0.01)


def _by_hand(units: Units, rounds: int, tail: float) -> tuple[float, float]:
    """Of the mean, by the standard library alone."""
    chance = random.Random(9)
    means = []
    for _ in range(rounds):
        drawn = [value for unit in chance.choices(units, k=len(units)) for value in unit]
        means.append(fmean(drawn))
    means.sort()
    return percentile(means, tail), percentile(means, 1 - tail)


@pytest.mark.slow
@pytest.mark.parametrize(("num", "at_least"), [(6, 0.87), (20, 0.9), (60, 0.9)])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(num: int, at_least: float) -> None:
    truth, held, runs = 0.5, {"mean": 0, "median": 0}, 200
    for seed in range(runs):
        theirs = made(seed, num)
        chance = random.Random(-1 - seed)
        ours = [[truth * v * chance.lognormvariate(0, 0.3) for v in each] for each in theirs]
        # what is added by chance has a mean of its own
        growth = math.exp(0.3**2 / 2)
        for name, interval, expected in (
            ("mean", _ratio_of_means(ours, theirs), truth * growth),
            ("median", bootstrap.ratio(Quantile(ours, 0.5), Quantile(theirs, 0.5)), truth),
        ):
            low, high = ends(interval)
            held[name] += low <= expected <= high
    print(num, {name: count / runs for name, count in held.items()})
    assert all(count / runs >= at_least for count in held.values())


def _ratio_of_means(ours: Units, theirs: Units) -> bootstrap.Interval:
    return bootstrap.ratio(bootstrap.mean(ours), bootstrap.mean(theirs))
