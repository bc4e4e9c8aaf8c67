"""Free space of a segment: first fit, neighbours joined again. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort


class Extents:
    """Hands out parts of `num_bytes`; not thread-safe."""

    def __init__(self, num_bytes: int) -> None:
        self.free_bytes = num_bytes
        self._starts = [0] if num_bytes else []
        self._lengths = {0: num_bytes} if num_bytes else {}

    def take(self, num_bytes: int) -> int | None:
        """Offset of a part, or None where no free one is long enough."""
        for start in self._starts:
            length = self._lengths[start]
            if length >= num_bytes:
                break
        else:
            return None
        self._remove(start)
        if length > num_bytes:
            self._insert(start + num_bytes, length - num_bytes)
        self.free_bytes -= num_bytes
        return start

    def give(self, start: int, num_bytes: int) -> None:
        """Take back what `take` gave."""
        self.free_bytes += num_bytes
        index = bisect_left(self._starts, start)
        after = self._starts[index] if index < len(self._starts) else None
        before = self._starts[index - 1] if index else None
        assert after is None or start + num_bytes <= after, (start, num_bytes, after)
        if after == start + num_bytes:
            num_bytes += self._remove(after)
        if before is not None:
            assert before + self._lengths[before] <= start, (before, start)
            if before + self._lengths[before] == start:
                num_bytes += self._lengths[before]
                self._remove(before)
                start = before
        self._insert(start, num_bytes)

    def _insert(self, start: int, length: int) -> None:
        insort(self._starts, start)
        self._lengths[start] = length

    def _remove(self, start: int) -> int:
        del self._starts[bisect_left(self._starts, start)]
        return self._lengths.pop(start)
