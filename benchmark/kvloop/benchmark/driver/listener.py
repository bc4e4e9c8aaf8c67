"""Who is told what happens while a benchmark runs."""

from __future__ import annotations

from typing import Protocol

from kvloop.benchmark.arms import Segment
from kvloop.benchmark.results.document import SegmentResult
from kvloop.benchmark.sample import Failure, Sample


class Listener(Protocol):
    """Called on the event loop that drives the load: `sent` and `outcome` must be quick.

    `began` and `ended` are called while no request is under way, and may take their time.
    """

    def began(self, segment: Segment) -> None:
        """An arm is about to load the server."""

    def sent(self) -> None:
        """A request is on its way; `outcome` follows, unless the run is cut short."""

    def outcome(self, outcome: Sample | Failure) -> None:
        """It was answered, or failed."""

    def ended(self, result: SegmentResult) -> None:
        """All of the segment's conversations are over, or the run was cut short."""


class Silence:
    """A Listener that does nothing."""

    def began(self, segment: Segment) -> None:
        pass

    def sent(self) -> None:
        pass

    def outcome(self, outcome: Sample | Failure) -> None:
        pass

    def ended(self, result: SegmentResult) -> None:
        pass


class Listeners:
    """Several Listeners as one, told in order."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def began(self, segment: Segment) -> None:
        for listener in self._listeners:
            listener.began(segment)

    def sent(self) -> None:
        for listener in self._listeners:
            listener.sent()

    def outcome(self, outcome: Sample | Failure) -> None:
        for listener in self._listeners:
            listener.outcome(outcome)

    def ended(self, result: SegmentResult) -> None:
        for listener in self._listeners:
            listener.ended(result)
