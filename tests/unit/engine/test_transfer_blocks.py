"""Descriptors of a transfer."""

from kvloop.engine.transfer import Block, merge


def test_blocks_that_follow_one_another_on_both_sides_become_one() -> None:
    assert merge([Block(0, 100, 10), Block(10, 110, 10)]) == [Block(0, 100, 20)]


def test_a_gap_on_either_side_keeps_blocks_apart() -> None:
    apart = [Block(0, 100, 10), Block(10, 120, 10), Block(30, 130, 10)]
    assert merge(apart) == apart
