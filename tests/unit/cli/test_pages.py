"""Expected pages beside found ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvloop.cli.up.pages import PageCount, expected_pages, judge, num_equal_at_start


@pytest.mark.parametrize(
    ("prompt", "answer", "prefill", "decode"),
    [
        (32, 1, 2, 0),  # the only answer token has no KV
        (32, 17, 2, 1),
        (31, 1, 1, 0),
        (31, 2, 1, 1),  # the page that straddles prompt and answer is decode's
        (84, 160, 5, 10),
    ],
)
def test_a_turn_leaves_its_full_pages(prompt: int, answer: int, prefill: int, decode: int) -> None:
    assert expected_pages(prompt, answer, 16) == PageCount(prefill=prefill, decode=decode)


@given(st.integers(1, 500), st.integers(1, 500), st.sampled_from([1, 16, 64]))
def test_together_they_hold_all_kv_but_a_last_part_of_a_page(
    prompt: int, answer: int, page_size: int
) -> None:
    pages = expected_pages(prompt, answer, page_size)
    left = (prompt + answer - 1) - (pages.prefill + pages.decode) * page_size
    assert 0 <= left < page_size and pages.decode >= 0


def test_enough_or_more_pages_pass() -> None:
    assert judge(PageCount(prefill=2, decode=4), PageCount(prefill=2, decode=5)) is None


def test_missing_pages_are_told_by_writer() -> None:
    missing = judge(PageCount(prefill=2, decode=4), PageCount(prefill=2, decode=3))
    assert missing is not None
    assert "decode wrote 3 of 4 pages" in missing and "prefill" not in missing


def test_the_common_start_of_two_prompts_is_counted() -> None:
    assert num_equal_at_start([1, 2, 3], [1, 2, 4, 5]) == 2
    assert num_equal_at_start([1, 2], [1, 2, 3]) == 2
    assert num_equal_at_start([], [1]) == 0
