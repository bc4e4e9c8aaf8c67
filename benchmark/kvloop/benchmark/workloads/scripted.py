"""What the synthetic loads have in common: conversations written out in advance."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from random import Random
from typing import Any, ClassVar

from kvloop.benchmark.workloads.ceiling import count_ceiling
from kvloop.benchmark.workloads.plan import Ceiling, Content, Conversation, Message, Said
from kvloop.benchmark.workloads.script import Part, Script
from kvloop.benchmark.workloads.words import draw_ids, draw_text, new_random
from kvloop.shared_cache.errors import ConfigError

_BETWEEN_PARTS = "\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted(ABC):
    """A `Workload` whose words are drawn; its fields are the command's flags.

    Raises ConfigError naming the flag that is wrong.
    """

    kind: ClassVar[str]
    lengths: ClassVar[str]
    """The flags that make prompts long."""
    content: Content = "token-ids"
    id_range: tuple[int, int] = (1000, 20000)
    """Token ids are drawn from [low, high): ordinary words in common vocabularies."""
    seed: int = 0
    scripts: tuple[Script, ...] = field(init=False, repr=False, compare=False)
    conversations: tuple[Conversation, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        low, high = self.id_range
        if not 0 <= low < high:
            raise ConfigError(f"--id-range must be LOW:HIGH with 0 <= LOW < HIGH, got {low}:{high}")
        self.check()
        scripts = self.write()
        object.__setattr__(self, "scripts", scripts)
        object.__setattr__(self, "conversations", tuple(one.conversation for one in scripts))

    @abstractmethod
    def check(self) -> None:
        """Raise ConfigError where a field is wrong."""

    @abstractmethod
    def write(self) -> tuple[Script, ...]:
        """All conversations, parents before their branches; the fields have been checked."""

    @property
    def ceiling(self) -> Ceiling | None:
        """None in text: the server alone knows how many tokens its words are."""
        return count_ceiling(self.scripts) if self.content == "token-ids" else None

    def say(self, conversation: int, turn: int) -> Said:
        """What a turn adds; negative conversations say words that no other has."""
        parts = self._parts(conversation, turn)
        if self.content == "text":
            return Said(messages=self._messages(parts))
        return Said(ids=tuple(id_ for part in parts for id_ in self._ids(part)))

    def describe(self) -> dict[str, Any]:
        """The flags, how many requests they came to, and the context that these need."""
        flags = {one.name: getattr(self, one.name) for one in fields(self) if one.init}
        return {
            "kind": self.kind,
            **{name: list(one) if isinstance(one, tuple) else one for name, one in flags.items()},
            "requests": sum(len(one.turns) for one in self.conversations),
            "longest_with_answer": self.context_needed,
        }

    @property
    def context_needed(self) -> int:
        """The longest prompt with its answer, in tokens; words in text, which are more tokens."""
        return max(ends[-1] for ends in _ends(self.scripts))

    def check_context(self, context: int | None) -> None:
        """Raise ConfigError where the load needs more tokens than that; None: nobody knows."""
        if context is not None and self.context_needed > context:
            raise ConfigError(
                f"the longest prompt and its answer are {self.context_needed} tokens, the model "
                f"takes {context}: lower {self.lengths}"
            )

    def draw(self, *what: object) -> Random:
        """Of one number of the load, named by `what`: no other depends on it."""
        return new_random(self.seed, *what)

    def _parts(self, conversation: int, turn: int) -> Sequence[Part]:
        if conversation >= 0:
            return self.scripts[conversation].lines[turn - 1].parts
        parts = self.scripts[0].lines[turn - 1].parts
        return [replace(part, key=f"warm-up/{conversation}/{part.key}") for part in parts]

    def _ids(self, part: Part) -> list[int]:
        return draw_ids(self.seed, part.key, part.length, self.id_range)

    def _messages(self, parts: Sequence[Part]) -> tuple[Message, ...]:
        return tuple(
            Message(role=role, content=_BETWEEN_PARTS.join(map(self._text, group)))
            for role, group in groupby(parts, key=lambda part: part.role)
        )

    def _text(self, part: Part) -> str:
        return draw_text(self.seed, part.key, part.length)


def _ends(scripts: Sequence[Script]) -> list[list[int]]:
    """By conversation, tokens up to each answer's end, its parent's first turns included."""
    ends: list[list[int]] = []
    for script in scripts:
        mine = list(ends[script.branch.parent][: script.branch.turns]) if script.branch else []
        ends.append(mine)
        for line in script.lines:
            mine.append((mine[-1] if mine else 0) + line.length + line.turn.output_length)
    return ends
