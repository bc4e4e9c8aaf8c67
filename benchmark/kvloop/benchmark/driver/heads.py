"""Heads of prompts: what makes a prompt unique, or keeps one arm's prompts from another's. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kvloop.benchmark.arms import Segment
from kvloop.benchmark.driver.target import Salting

Messages = list[dict[str, str]]
_BITS = 48
"""Of what a head says: no two heads of a run are equal by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """Draws heads; equal names give equal ones on every machine."""

    vocabulary: tuple[int, ...] = ()
    """Ids that the server's model has; a head of ids is drawn from them. None for text."""

    def put(self, prompt: Sequence[Any], name: str) -> list[Any]:
        """The prompt under the head of that name.

        Token ids: its first ids are replaced, so that it stays as long. Text: the first message
        gets a first word.
        """
        if self.vocabulary:
            head = self._ids(name)[: len(prompt)]
            return [*head, *prompt[len(head) :]]
        first, *rest = prompt
        return [{**first, "content": f"{_word(name)} {first['content']}"}, *rest]

    def _ids(self, name: str) -> list[int]:
        num = math.ceil(_BITS / math.log2(max(len(self.vocabulary), 2)))
        return random.Random(name).choices(self.vocabulary, k=num)


def _word(name: str) -> str:
    return f"{random.Random(name).getrandbits(_BITS):012x}"


def head_of(segment: Segment, salting: Salting, conversation: int, turn: int) -> str | None:
    """The name of a request's head; None: its prompt goes as it is."""
    if segment.arm == "all_miss":
        return f"{segment.salt}/{segment.round}/{conversation}/{turn}"
    return segment.salt if salting == "prompt" and segment.salt else None


def new_heads(ids: Sequence[int]) -> Heads:
    """From ids of the workload's own words; none for text."""
    return Heads(vocabulary=tuple(sorted(set(ids))))
