"""Prompts that share exactly the prefixes that a trace's ids say."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence

from kvloop.benchmark.replay.trace import Request
from kvloop.benchmark.workloads.plan import Ceiling
from kvloop.benchmark.workloads.trace_scale import Scale
from kvloop.benchmark.workloads.words import new_random

_HOW = (
    "tokens at a prompt's start that an earlier prompt began with, by the trace's ids and in its "
    "order; answers are in no later prompt; nothing ever evicted"
)


class Blocks:
    """The words of each id, as numbers from 0 up to the vocabulary's size.

    Equal ids have equal words. Ids that follow the same id differ at their first word, or, where
    there are more of them than words, within the first few.
    """

    def __init__(self, parents: Mapping[int, int | None], vocabulary: int, seed: int) -> None:
        self._vocabulary, self._seed = vocabulary, seed
        self._parents = parents
        self._siblings: dict[int | None, int] = {}
        """How many ids follow an id."""
        self._ranks: dict[int, int] = {}
        """Which of those that follow the same id it is."""
        for page, parent in parents.items():
            self._ranks[page] = self._siblings.get(parent, 0)
            self._siblings[parent] = self._ranks[page] + 1

    def draw(self, page: int, length: int) -> list[int]:
        """The first `length` words of an id."""
        head = self._head(page)[:length]
        return head + self._tail(page, length - len(head))

    def _tail(self, page: int, length: int) -> list[int]:
        # random.Random takes several times as long, and the driver times its streams meanwhile
        stream = hashlib.shake_256(f"{self._seed}/block/{page}".encode()).digest(4 * length)
        return [number % self._vocabulary for number in struct.unpack(f"<{length}I", stream)]

    def _head(self, page: int) -> list[int]:
        """The id's rank in as many digits as tell all its siblings apart, the lowest first."""
        parent = self._parents[page]
        digits, size = 0, 1
        while size < self._siblings[parent]:
            digits, size = digits + 1, size * self._vocabulary
        if not digits:
            return []
        first = new_random(self._seed, "siblings", parent).randrange(size)
        rank = (first + self._ranks[page]) % size
        return [rank // self._vocabulary**digit % self._vocabulary for digit in range(digits)]


def draw_prompt(blocks: Blocks, scale: Scale, request: Request) -> list[int]:
    """A prompt's words; of its last id, as many as its scaled length leaves."""
    words: list[int] = []
    length = scale.prompt(request)
    for page in request.pages:
        words += blocks.draw(page, min(scale.block_tokens, length - len(words)))
    assert len(words) == length
    return words


def count_ceiling(scale: Scale, requests: Sequence[Request]) -> Ceiling:
    """Of requests in time order, each after the answers to all before it."""
    seen: dict[int, int] = {}
    """By id, how many of its tokens stood in a prompt."""
    tokens = reusable = 0
    for request in requests:
        length, is_known = scale.prompt(request), True
        for index, page in enumerate(request.pages):
            own = min(scale.block_tokens, length - index * scale.block_tokens)
            known = min(own, seen.get(page, 0))
            reusable += known if is_known else 0
            is_known = is_known and known == scale.block_tokens
            seen[page] = max(own, seen.get(page, 0))
        tokens += length
    return Ceiling(tokens=tokens, reusable_tokens=reusable, words=_HOW)
