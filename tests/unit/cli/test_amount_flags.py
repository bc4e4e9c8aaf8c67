"""Flags that take a number or a range."""

import argparse

import pytest

from kvloop.cli import flag_types


@pytest.mark.parametrize(("text", "value"), [("7", 7), ("3:9", (3, 9)), ("4:4", (4, 4))])
def test_an_amount_is_a_number_or_a_range(text: str, value: int | tuple[int, int]) -> None:
    assert flag_types.amount(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "9:3", "0:3", "1:2:3", "x", "", "1.5", ":3", "3:"])
def test_a_wrong_amount_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="LOW:HIGH with LOW not above HIGH"):
        flag_types.amount(text)


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("2.5", 2.5), ("0.5:3", (0.5, 3.0))])
def test_seconds_are_a_number_or_a_range(text: str, value: float | tuple[float, float]) -> None:
    assert flag_types.seconds(text) == value


@pytest.mark.parametrize("text", ["-1", "3:2", "nan", "1:nan", "inf", "1:inf", "1:2:3", "", "x:2"])
def test_wrong_seconds_are_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="seconds of 0 or above, or LOW:HIGH"):
        flag_types.seconds(text)
