"""Where a conversation stands, and where branches leave their parents."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kvloop.benchmark.driver.history import IdHistory, TextHistory
from kvloop.benchmark.workloads.plan import Branch, Conversation


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A conversation after an answer."""

    history: IdHistory | TextHistory
    turns: int = 0
    """Answered, its parent's first ones included."""
    reusable_tokens: int = 0
    """Whose KV the last turn left behind."""
    answered_s: float = 0.0
    """After the segment's start."""


class Forks:
    """Of one segment; histories are copied only where a branch waits for them."""

    def __init__(self, conversations: Sequence[Conversation], held: Sequence[int]) -> None:
        branches = [conversations[number].branch for number in held]
        # a branch that waits for a parent elsewhere would wait for good
        assert {branch.parent for branch in branches if branch} <= set(held)
        loop = asyncio.get_running_loop()
        self._awaited: dict[tuple[int, int], asyncio.Future[Standing | None]] = {
            (branch.parent, branch.turns): loop.create_future() for branch in branches if branch
        }

    def is_awaited(self, number: int, turns: int) -> bool:
        """Whether a branch leaves that conversation there."""
        return (number, turns) in self._awaited

    async def wait(self, branch: Branch) -> Standing | None:
        """Until its parent is so far; None: the parent ended before."""
        standing = await asyncio.shield(self._awaited[branch.parent, branch.turns])
        return standing and replace(standing, history=standing.history.copy())

    def offer(self, number: int, standing: Standing) -> None:
        """A conversation was answered."""
        awaited = self._awaited.get((number, standing.turns))
        if awaited is not None and not awaited.done():
            awaited.set_result(replace(standing, history=standing.history.copy()))

    def end(self, number: int) -> None:
        """A conversation is over: where it has not come, it never will."""
        for (parent, _), awaited in self._awaited.items():
            if parent == number and not awaited.done():
                awaited.set_result(None)
