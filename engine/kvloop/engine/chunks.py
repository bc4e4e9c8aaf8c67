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


def plan_chunks(
    prompts: Sequence[Prompt], budget: int, page_size: int, enough: int | None = None
) -> list[int]:
    """Tokens that each prompt computes in the next step, oldest first, `budget` in all.

    A chunk that does not end its prompt ends with a page. No further prompt joins a step that has
    `enough` tokens to keep the device busy: it would end no sooner, and the older ones later.
    """
    takes: list[int] = []
    for prompt in prompts:
        room = budget - sum(takes)
        rest = prompt.num_tokens - prompt.num_done
        take = rest if rest <= room else _whole_pages(prompt.num_done, room, page_size)
        is_enough = bool(takes) and sum(takes) >= (enough or budget)
        takes.append(0 if is_enough else take)
    return takes


def _whole_pages(num_done: int, room: int, page_size: int) -> int:
    """Tokens up to the last end of a page within `room`; what is done may end inside a page."""
    return max((num_done + room) // page_size * page_size - num_done, 0)
