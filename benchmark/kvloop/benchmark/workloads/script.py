"""A conversation written out before it is held: parts of given lengths, named by what they say."""

from __future__ import annotations

from dataclasses import dataclass

from kvloop.benchmark.workloads.plan import Branch, Conversation, Speaker, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A stretch of a prompt that stands or falls as one."""

    key: str
    """Its words are drawn by it: parts with equal keys are equal, others differ."""
    length: int
    """In tokens, or words in text."""
    role: Speaker = "user"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One turn: what it adds to the history, and how it is asked."""

    parts: tuple[Part, ...]
    turn: Turn

    @property
    def length(self) -> int:
        """Of all parts."""
        return sum(part.length for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One conversation."""

    lines: tuple[Line, ...]
    branch: Branch | None = None

    @property
    def conversation(self) -> Conversation:
        """What the driver needs to know of it."""
        return Conversation(turns=tuple(line.turn for line in self.lines), branch=self.branch)
