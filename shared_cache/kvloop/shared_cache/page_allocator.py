"""Which pages of a pool are free, kept as runs so that a sequence's pages can lie side by side."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


class PageAllocator:
    """Hands out page ids 0 .. num_pages - 1; not thread-safe.

    One contiguous run is preferred (the smallest that is long enough), because attention reads a
    contiguous sequence through a view, without a gather.
    """

    def __init__(self, num_pages: int) -> None:
        if num_pages <= 0:
            raise ValueError(f"num_pages must be positive, got {num_pages}")
        self.num_pages = num_pages
        self.num_free = 0
        self._is_free = bytearray(num_pages)
        self._by_size: list[tuple[int, int]] = []  # (length, start), sorted
        self._length_at: dict[int, int] = {}  # start -> length
        self._start_of_end: dict[int, int] = {}  # one past the last page -> start
        self._mark_free(0, num_pages)

    def alloc(self, n: int, after: int | None = None) -> list[int] | None:
        """Take `n` pages in ascending order, or none at all where fewer are free.

        With `after` the pages right behind that page come first where they are free, so that a
        growing sequence stays contiguous. Otherwise one run, or else the fewest runs.
        """
        assert n >= 0
        if n > self.num_free:
            return None
        if after is not None and self._length_at.get(after + 1, 0) >= n > 0:
            return self._take(after + 1, n)
        at = bisect_left(self._by_size, (n, -1))
        if n and at < len(self._by_size):
            return self._take(self._by_size[at][1], n)
        return self._gather(n)

    def free(self, pages: Sequence[int]) -> None:
        """Give pages back, in any order."""
        for start, length in _runs(sorted(pages)):
            assert start >= 0 and start + length <= self.num_pages, (start, length)
            assert not any(self._is_free[start : start + length]), f"double free near page {start}"
            self._mark_free(start, length)

    def _gather(self, n: int) -> list[int]:
        pages: list[int] = []
        while len(pages) < n:
            length, start = self._by_size[-1]
            pages += self._take(start, min(length, n - len(pages)))
        return sorted(pages)

    def _take(self, start: int, n: int) -> list[int]:
        length = self._drop(start)
        if length > n:
            self._add(start + n, length - n)
        self._is_free[start : start + n] = bytes(n)
        self.num_free -= n
        return list(range(start, start + n))

    def _mark_free(self, start: int, length: int) -> None:
        self._is_free[start : start + length] = b"\x01" * length
        self.num_free += length
        if start + length in self._length_at:
            length += self._drop(start + length)
        if start in self._start_of_end:
            start = self._start_of_end[start]
            length += self._drop(start)
        self._add(start, length)

    def _add(self, start: int, length: int) -> None:
        insort(self._by_size, (length, start))
        self._length_at[start] = length
        self._start_of_end[start + length] = start

    def _drop(self, start: int) -> int:
        length = self._length_at.pop(start)
        del self._start_of_end[start + length]
        del self._by_size[bisect_left(self._by_size, (length, start))]
        return length


def _runs(pages: Sequence[int]) -> list[tuple[int, int]]:
    """Split ascending pages into (start, length) runs; a repeated page starts a run of its own."""
    runs: list[tuple[int, int]] = []
    start = 0
    for i in range(1, len(pages) + 1):
        if i == len(pages) or pages[i] != pages[i - 1] + 1:
            runs.append((pages[start], i - start))
            start = i
    return runs
