"""One answered turn of a chat, and how many of its predecessor's pages it found. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvloop.benchmark.sample import Sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Tokens, seconds; chat and turn count from 1."""

    chat: int
    turn: int
    prompt_ids: Sequence[int]
    answer_ids: Sequence[int]
    """As generated; a stop token is not among them."""
    completion_tokens: int
    """Sampled, a stop token included."""
    sources: Sources
    prefill_node: str | None
    decode_node: str | None
    fallback: str | None
    ttft_s: float
    itl_s: Sequence[float]

    @property
    def hit_tokens(self) -> int:
        """Prompt tokens that were not computed: always the prompt's first ones."""
        return len(self.prompt_ids) - self.sources.computed

    def full_pages(self, page_size: int) -> int:
        """Pages that this turn leaves behind; the last sampled token has no KV."""
        return (len(self.prompt_ids) + self.completion_tokens - 1) // page_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Pages of all earlier turns of a chat, expected and found by one later turn."""

    turn: Turn
    expected: int
    found: int
    repeated_tokens: int
    """Leading tokens of the prompt that the chat's earlier turns had, id for id."""
    earlier_tokens: int
    """All tokens of the earlier turns."""

    @property
    def missed(self) -> int:
        return self.expected - self.found

    @property
    def has_drifted(self) -> bool:
        """The prompt does not repeat the ids of the earlier turns."""
        return self.repeated_tokens < self.earlier_tokens


def count_pages(before: Turn, turn: Turn, page_size: int) -> Count:
    """What a turn found of the turn before, which itself repeats all earlier ones."""
    expected = before.full_pages(page_size)
    earlier = [*before.prompt_ids, *before.answer_ids]
    return Count(
        turn=turn,
        expected=expected,
        found=min(expected, turn.hit_tokens // page_size),
        repeated_tokens=num_equal(earlier, turn.prompt_ids),
        earlier_tokens=len(earlier),
    )


def num_equal(left: Sequence[int], right: Sequence[int]) -> int:
    """Equal items at the start of both."""
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return min(len(left), len(right))
