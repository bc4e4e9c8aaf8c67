"""Chunked prefill: how many tokens of each prompt the next step computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Prompt(Protocol):
    """What the planner needs to know of a prompt."""

    @property
    def num_done(self) -> int: ...
    @property
    def num_tokens(self) -> int: ...


def plan_chunks(prompts: Sequence[Prompt], budget: int, page_size: int) -> list[int]:
    """Tokens that each prompt computes in the next step, oldest first, `budget` in all.

    A chunk that does not end its prompt ends with a page.
    """
    takes = []
    for prompt in prompts:
        rest = prompt.num_tokens - prompt.num_done
        take = rest if rest <= budget else budget // page_size * page_size
        takes.append(take)
        budget -= take
    return takes
