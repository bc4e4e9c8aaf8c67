"""Numbers and axes of the page."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvloop.benchmark.page import units
from kvloop.benchmark.page.figure import spaced
from kvloop.benchmark.page.scale import Scale, for_times, from_zero

TIMES = st.lists(st.floats(min_value=1e-4, max_value=1e7), min_size=1, max_size=50)


@given(TIMES)
def test_every_time_lies_between_the_ends_of_its_axis(times: list[float]) -> None:
    scale = for_times(times, 300, 10)
    assert scale.low <= min(times) and max(times) <= scale.high * 1.000001


@given(TIMES)
def test_an_axis_has_two_to_twelve_labels_all_different(times: list[float]) -> None:
    scale = from_zero(times, 0, 100)
    labels = [units.tick(t) for t in scale.ticks]
    assert 2 <= len(labels) <= 12
    if max(times) >= 0.01:
        assert len(set(labels)) == len(labels)


@given(TIMES)
def test_larger_values_are_drawn_further_along(times: list[float]) -> None:
    scale = for_times(times, 0, 100)
    places = [scale.at(t) for t in sorted(times)]
    assert places == sorted(places)


def test_times_start_at_zero_so_that_ratios_are_seen() -> None:
    assert for_times([1.0, 2.0], 0, 100).low == 0


def test_one_time_far_above_the_others_makes_the_axis_logarithmic() -> None:
    scale = for_times([0.3, 0.4, 0.5, 40.0], 0, 100)
    assert scale.is_log
    assert scale.ticks == (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)


def test_values_beyond_an_axis_stand_at_its_end() -> None:
    scale = Scale(low=0, high=10, start=0, end=100)
    assert scale.at(25) == 100 and scale.at(-3) == 0


def test_labels_that_would_touch_are_thinned() -> None:
    ticks = [(10.0 * i, f"{1000 * i:,}") for i in range(30)]
    shown = spaced(ticks)
    assert 1 < len(shown) < 10
    assert spaced([(100.0 * i, "1") for i in range(5)]) == [(100.0 * i, "1") for i in range(5)]


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (None, "-"),
        (0.1234, "0.123 ms"),
        (35.04, "35.0 ms"),
        (999.6, "1.00 s"),
        (1730.0, "1.73 s"),
        (250_000.0, "4 min 10 s"),
    ],
)
def test_durations_have_the_unit_that_a_person_would_choose(ms: float | None, words: str) -> None:
    assert units.duration(ms).replace(units.SPACE, " ") == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "-"), (0.0, "0 %"), (1.0, "100 %"), (0.736, "74 %"), (0.052, "5.2 %")],
)
def test_shares_are_per_cent(value: float | None, words: str) -> None:
    assert units.share(value).replace(units.SPACE, " ") == words


@pytest.mark.parametrize("value", [0.9996, 0.0004, 0.994])
def test_nearly_all_is_not_all_and_nearly_nothing_not_nothing(value: float) -> None:
    assert units.share(value) not in (f"100{units.SPACE}%", f"0{units.SPACE}%")


def test_a_number_does_not_part_from_its_unit() -> None:
    assert " " not in units.duration(366.0) and " " not in units.share(0.5)


def test_counts_speak_of_one_and_of_many() -> None:
    assert units.count(1, "request") == "1 request"
    assert units.count(12345, "request") == "12,345 requests"
