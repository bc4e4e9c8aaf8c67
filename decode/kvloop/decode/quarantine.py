"""Pages that a sender was offered and may still write into; nobody else may use them."""

from __future__ import annotations


class Quarantine:
    """By attempt, until it is known that no write of it is outstanding."""

    def __init__(self) -> None:
        self._pages: dict[str, list[int]] = {}

    @property
    def num_pages(self) -> int:
        return sum(len(pages) for pages in self._pages.values())

    def hold(self, attempt: str, pages: list[int]) -> None:
        """Keep an attempt's pages from reuse."""
        assert attempt not in self._pages
        self._pages[attempt] = pages

    def release(self, attempt: str) -> list[int]:
        """The attempt is quiet: its pages, free to be used again."""
        return self._pages.pop(attempt, [])
