"""How many pages turn 2 must find, and how many it found. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIN_ANSWER_PAGES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCount:
    """Pages by the role that wrote them."""

    prefill: int
    decode: int


def expected_pages(prompt_tokens: int, answer_tokens: int, page_size: int) -> PageCount:
    """Full pages that a finished turn leaves in the shared cache.

    The last sampled token has no KV. The page that straddles prompt and answer is decode's.
    """
    assert prompt_tokens > 0 and answer_tokens > 0
    by_prefill = prompt_tokens // page_size
    total = (prompt_tokens + answer_tokens - 1) // page_size
    return PageCount(prefill=by_prefill, decode=total - by_prefill)


def num_equal_at_start(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the common prefix."""
    pairs = zip(first, second, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def judge(expected: PageCount, found: PageCount) -> str | None:
    """None when enough was found, else what is missing, in words."""
    missing = [
        f"{role} wrote {found_pages} of {expected_pages} pages"
        for role, expected_pages, found_pages in (
            ("decode", expected.decode, found.decode),
            ("prefill", expected.prefill, found.prefill),
        )
        if found_pages < expected_pages
    ]
    if not missing:
        return None
    return f"turn 2 found less in the shared cache than turn 1 left there: {', '.join(missing)}"
