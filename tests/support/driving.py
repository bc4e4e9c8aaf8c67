"""Short loads that say what a test wants, and the driver that holds them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvloop.benchmark.arms import Arm, Segment
from kvloop.benchmark.driver.api import open_session
from kvloop.benchmark.driver.drive import drive
from kvloop.benchmark.driver.driven import Driven
from kvloop.benchmark.driver.listener import Listener
from kvloop.benchmark.driver.loop import run
from kvloop.benchmark.driver.options import DriveOptions
from kvloop.benchmark.driver.target import Target
from kvloop.benchmark.sample import Failure, Sample
from kvloop.benchmark.workloads.plan import Content, Conversation, Message, Said, Turn

_LONGEST_S = 200.0
"""A test's timeout does not interrupt uvloop: a run that hangs must end by itself."""


@dataclass(frozen=True, kw_only=True)
class Talk:
    """Conversations as given; what `said` does not say is drawn up: 20 ids, or three words."""

    conversations: Sequence[Conversation]
    content: Content = "token-ids"
    said: Mapping[tuple[int, int], Said] = field(default_factory=dict)
    kind = "talk"
    ceiling = None

    def say(self, conversation: int, turn: int) -> Said:
        if (conversation, turn) in self.said:
            return self.said[conversation, turn]
        if self.content == "text":
            text = f"conversation {conversation} turn {turn}"
            return Said(messages=(Message(role="user", content=text),))
        start = 10_000 + 1000 * conversation + 100 * turn
        return Said(ids=tuple(range(start, start + 20)))

    def describe(self) -> dict[str, Any]:
        return {}


def turns(num: int, **fields: Any) -> Conversation:
    """A conversation of equal turns that ask for four tokens each."""
    return Conversation(turns=(Turn(**{"output_length": 4, **fields}),) * num)


def segment(talk: Talk, arm: Arm = "on", **fields: Any) -> Segment:
    """All of the conversations under one arm."""
    mine = tuple(range(len(talk.conversations)))
    values = {"step": 0, "round": 0, "conversations": mine, "salt": f"salt-{arm}", **fields}
    return Segment(arm=arm, **values)


def hold(
    url: str,
    talk: Talk,
    *,
    segments: Sequence[Segment] = (),
    target: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
    **options: Any,
) -> Driven:
    """Drive it; without warm-up and with 20 s of patience, unless options say otherwise."""

    async def main() -> Driven:
        async with asyncio.timeout(_LONGEST_S), open_session() as http:
            return await drive(
                http,
                Target(**{"url": url, "model": "stub", "content": talk.content, **(target or {})}),
                talk,
                segments or [segment(talk)],
                DriveOptions(**{"warmup": 0, "timeout_s": 20, **options}),
                listener,
            )

    return run(main())


class Notes:
    """A Listener that writes down what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def began(self, segment: Segment) -> None:
        self.said.append(f"began {segment.arm}")

    def sent(self) -> None:
        self.said.append("sent")

    def outcome(self, outcome: Sample | Failure) -> None:
        self.said.append(f"{type(outcome).__name__} {outcome.conversation}/{outcome.turn}")

    def ended(self, result: Any) -> None:
        self.said.append(f"ended {result.arm}")


def sample_of(driven: Driven, conversation: int, turn: int) -> Sample:
    """The one of that place."""
    (found,) = (
        one for one in driven.samples if (one.conversation, one.turn) == (conversation, turn)
    )
    return found
