"""Which node held which page last: a bounded memory of what was routed where."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

_MAX_HOLDERS = 4
"""Nodes remembered for each page; the latest stay."""


class PrefixIndex:
    """Page key -> incarnations that computed or received it; least recently used keys go first."""

    def __init__(self, max_pages: int) -> None:
        self._max_pages = max_pages
        self._holders: OrderedDict[bytes, tuple[str, ...]] = OrderedDict()

    def record(self, keys: Iterable[bytes], incarnation: str) -> None:
        """The node holds these pages now."""
        for key in keys:
            others = [node for node in self._holders.get(key, ()) if node != incarnation]
            self._holders[key] = (incarnation, *others[: _MAX_HOLDERS - 1])
            self._holders.move_to_end(key)
        while len(self._holders) > self._max_pages:
            self._holders.popitem(last=False)

    def leading_pages(self, keys: Sequence[bytes]) -> dict[str, int]:
        """For each node that holds the first page: how many pages it holds without a gap."""
        runs: dict[str, int] = {}
        for depth, key in enumerate(keys):
            extended = [n for n in self._holders.get(key, ()) if runs.get(n, 0) == depth]
            if not extended:
                break
            for node in extended:
                runs[node] = depth + 1
        return runs

    def clear(self) -> int:
        """Forget all; returns how many pages were known."""
        count = len(self._holders)
        self._holders.clear()
        return count

    def __len__(self) -> int:
        return len(self._holders)
