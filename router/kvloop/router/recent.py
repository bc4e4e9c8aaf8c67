"""Which decode node has answered last: where a session's pages may still be on their way to L3."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

FRESH_S = 1.0
"""From an answer's end on: after that its pages are in L3, or will not be."""
_MAX = 4096


class RecentAnswers:
    """The last full page of each answer that ended a moment ago; bounded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ended: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def note(self, keys: Sequence[bytes], incarnation: str) -> None:
        """An answer has ended; `keys` are all full pages of it and its prompt."""
        now = self._clock()
        while self._ended and (len(self._ended) >= _MAX or self._is_old(now)):
            self._ended.popitem(last=False)
        if keys:
            self._ended.pop(keys[-1], None)
            self._ended[keys[-1]] = (incarnation, now)

    def node_of(self, keys: Sequence[bytes]) -> str | None:
        """The node that has answered the longest beginning of this prompt a moment ago."""
        since = self._clock() - FRESH_S
        for key in reversed(keys):
            incarnation, ended_at = self._ended.get(key, ("", 0.0))
            if incarnation and ended_at >= since:
                return incarnation
        return None

    def _is_old(self, now: float) -> bool:
        _, ended_at = next(iter(self._ended.values()))
        return ended_at < now - FRESH_S
