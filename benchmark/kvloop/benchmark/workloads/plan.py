"""What a load is: conversations, their turns, when each is due, and what it says.

Pure: equal seeds give equal words and times. The driver (`driver/`) holds the conversations; a
workload never learns what was answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Content = Literal["token-ids", "text"]
Speaker = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One request of a conversation."""

    output_length: int
    """Tokens of the answer; the model's own end is ignored."""
    think_s: float = 0.0
    """Seconds between the answer before and this request."""
    at_s: float | None = None
    """Seconds from the start of the load at which it is due at the earliest (traces, open loops);
    None: as soon as the conversation has come so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A conversation that begins with another one's first turns and answers."""

    parent: int
    """Its number among the workload's conversations; below this one's."""
    turns: int
    """How many of the parent's turns, from 1; the branch starts once they are answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Its own turns, in order; a branch's numbering goes on from its parent's."""

    turns: tuple[Turn, ...]
    branch: Branch | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One chat message."""

    role: Speaker
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a turn adds: `ids` for token ids, `messages` for text."""

    ids: tuple[int, ...] = ()
    messages: tuple[Message, ...] = ()
    is_whole: bool = False
    """Whether this is the whole prompt, and no history goes before it (traces)."""
    answer: str | None = None
    """Goes into the history in place of what the server answers (recorded chats)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """The most that can be reused of this load, counted without any cache, for the report."""

    tokens: int
    """Prompt tokens of all requests."""
    reusable_tokens: int
    """Of those, how many stood at the start of a prompt before, in this load."""
    words: str
    """How it was counted."""

    @property
    def rate(self) -> float:
        """From 0 to 1."""
        return self.reusable_tokens / self.tokens if self.tokens else 0.0


class Workload(Protocol):
    """A load against a server; all of it is known before it starts."""

    @property
    def kind(self) -> str:
        """The command's name: multi-turn, trace, dataset, long-doc, agent."""

    @property
    def content(self) -> Content:
        """What the requests carry."""

    @property
    def conversations(self) -> Sequence[Conversation]:
        """In the order in which they start."""

    @property
    def ceiling(self) -> Ceiling | None:
        """None: as the server's own counts say, turn by turn."""

    def say(self, conversation: int, turn: int) -> Said:
        """What turn `turn` (from 1, of its own turns) adds; negative conversations warm up."""

    def describe(self) -> Mapping[str, Any]:
        """Its flags and what they came to, for the report; plain JSON values."""


def num_requests(workload: Workload) -> int:
    """Requests of one pass, if none fails."""
    return sum(len(conversation.turns) for conversation in workload.conversations)
