import pytest

from kvloop.router.canary.shape import fit, shortest


@pytest.mark.parametrize("page_size", [1, 2, 4, 16, 64, 128])
def test_a_canary_fills_three_pages_of_prompt_and_more_than_four_of_answer(page_size: int) -> None:
    shape = fit(page_size, 1 << 20)
    assert shape is not None and shape.note is None
    assert (shape.prompt_pages, shape.num_pages, shape.decode_pages) == (3, 8, 5)
    assert shape.answer >= 4 * page_size


@pytest.mark.parametrize("page_size", [16, 64])
def test_one_page_lies_across_prompt_and_answer_and_turn_1_ends_with_a_page(page_size: int) -> None:
    shape = fit(page_size, 1 << 20)
    assert shape is not None
    assert shape.prompt % page_size == page_size // 2
    # the last sampled token has no KV: no partial page is left over
    assert (shape.prompt + shape.answer - 1) % page_size == 0


def test_turn_2_fills_no_further_page_that_would_stay_in_the_store() -> None:
    shape = fit(16, 1 << 20)
    assert shape is not None
    assert (shape.longest - 1) // 16 == shape.num_pages


def test_a_short_context_makes_a_shorter_chat_that_says_so() -> None:
    shape = fit(64, 6 * 64)
    assert shape is not None and shape.note is not None
    assert shape.longest <= 6 * 64 and shape.num_pages == 5
    assert "context is short" in shape.note


def test_a_context_that_holds_no_chat_gets_none() -> None:
    least = shortest(64)
    assert fit(64, least) is not None
    assert fit(64, least - 1) is None
