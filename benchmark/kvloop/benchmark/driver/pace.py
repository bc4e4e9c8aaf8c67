"""When each request of a segment is due. Pure: seconds after the segment's start."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from kvloop.benchmark.arms import Segment
from kvloop.benchmark.driver.options import Arrival, DriveOptions
from kvloop.benchmark.workloads.plan import Conversation


class Pace:
    """Of one segment; every arm of a step and round has the same times."""

    def __init__(
        self, conversations: Sequence[Conversation], segment: Segment, options: DriveOptions
    ) -> None:
        self._conversations, self._time_scale = conversations, options.time_scale
        self._is_paced = segment.rate is not None
        self._starts = starts_s(conversations, segment, options)
        self._origin_s = _origin_s(conversations, segment)

    def due_s(self, number: int, index: int, answered_s: float) -> float | None:
        """Of a conversation's own turn `index` from 0, whose turn before was answered at that time.

        None: as soon as one of the clients is free for it. A time may lie before `answered_s`: then
        the conversation is late.
        """
        conversation = self._conversations[number]
        turn = conversation.turns[index]
        if index == 0 and number in self._starts:
            return self._starts[number]
        if turn.at_s is not None and not self._is_paced:
            return (turn.at_s - self._origin_s) / self._time_scale
        if index == 0 and conversation.branch is None:
            return None
        return self.free_s(number, index, answered_s)

    def free_s(self, number: int, index: int, answered_s: float) -> float:
        """When the client has thought; nothing is sent before."""
        return answered_s + self._conversations[number].turns[index].think_s / self._time_scale


def starts_s(
    conversations: Sequence[Conversation], segment: Segment, options: DriveOptions
) -> dict[int, float]:
    """When first turns are due, by conversation, in a segment with a rate.

    A branch has no such time: it starts when its parent has come so far.
    """
    if segment.rate is None:
        return {}
    mine = segment.conversations
    roots = [number for number in mine if conversations[number].branch is None]
    num_requests = sum(len(conversations[number].turns) for number in mine)
    draw = random.Random(f"{options.seed}/arrivals/{segment.step}/{segment.round}")
    gaps = gaps_s(segment.rate * len(roots) / num_requests, options.arrival, draw)
    at, starts = 0.0, {}
    for number in roots:
        starts[number] = at
        at += next(gaps)
    return starts


def gaps_s(rate: float, arrival: Arrival, draw: random.Random) -> Iterator[float]:
    """Seconds between starts, without end: `1 / rate` in the mean."""
    while True:
        yield draw.expovariate(rate) if arrival == "poisson" else 1 / rate


def _origin_s(conversations: Sequence[Conversation], segment: Segment) -> float:
    """The workload's time at which the segment starts: its earliest turn's."""
    times = (
        turn.at_s
        for number in segment.conversations
        for turn in conversations[number].turns
        if turn.at_s is not None
    )
    return min(times, default=0.0)
