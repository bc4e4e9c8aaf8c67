"""Stop strings, matched across token boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Cut(NamedTuple):
    """What may be shown now, and which stop string ended the answer, if any."""

    text: str
    matched: str | None


class StopMatcher:
    """Passes text on, holding back what may yet become a stop string.

    The match that ends first wins, and of those the one that begins first; so the result does not
    depend on how the text was cut into chunks. The stop string itself is not shown.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        assert all(stops), "an empty stop string matches everywhere"
        self._stops = tuple(stops)
        self._held = ""

    def push(self, text: str) -> Cut:
        """Take the next piece of text."""
        if not self._stops:
            return Cut(text, None)
        held = self._held + text
        found = [
            (held.find(stop) + len(stop), -len(stop), stop) for stop in self._stops if stop in held
        ]
        if found:
            end, _, stop = min(found)
            self._held = ""
            return Cut(held[: end - len(stop)], stop)
        keep = max(_overlap(held, stop) for stop in self._stops)
        split = len(held) - keep
        self._held = held[split:]
        return Cut(held[:split], None)

    def flush(self) -> str:
        """What was held back: the answer ended without completing a stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
