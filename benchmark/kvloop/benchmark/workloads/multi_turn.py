"""Conversations whose turns repeat their history: chats of people, in drawn words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from kvloop.benchmark.workloads.amounts import (
    Amount,
    Seconds,
    check_amount,
    check_number,
    check_seconds,
    draw_amount,
    draw_seconds,
)
from kvloop.benchmark.workloads.branching import check_branching, write_families
from kvloop.benchmark.workloads.plan import Turn
from kvloop.benchmark.workloads.script import Line, Part, Script
from kvloop.benchmark.workloads.scripted import Scripted


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiTurn(Scripted):
    """Chats that may share system prompts and may branch; fields are the command's flags."""

    kind: ClassVar[str] = "multi-turn"
    lengths: ClassVar[str] = "--turns, --request-length or --output-length"
    num_conversations: int = 4
    """Without their branches."""
    turns: Amount = 5
    """Of each conversation; a branch ends where such a conversation would."""
    request_length: Amount = 250
    """New tokens (or words, in text) of each turn."""
    first_length: Amount | None = None
    """Those of a conversation's first turn, its system prompt left out; None: as of the others."""
    output_length: Amount = 32
    """Tokens of each answer."""
    system_prompts: int = 0
    """Different ones; conversations take them in turn. 0: none."""
    system_length: Amount = 500
    """Tokens of a system prompt."""
    branches: int = 0
    """Conversations that leave each one after `branch_turn` and go on in words of their own."""
    branch_turn: int = 1
    think_s: Seconds = 0.0
    """Between an answer and the next request."""

    def check(self) -> None:
        check_number("--conversations", self.num_conversations)
        check_amount("--turns", self.turns)
        check_amount("--request-length", self.request_length)
        check_amount("--output-length", self.output_length)
        check_amount("--system-length", self.system_length)
        if self.first_length is not None:
            check_amount("--first-length", self.first_length)
        check_seconds("--think-s", self.think_s)
        check_number("--system-prompts", self.system_prompts, least=0)
        check_branching(
            ("--branches", self.branches),
            ("--branch-turn", self.branch_turn),
            ("--turns", self.turns),
        )

    def write(self) -> tuple[Script, ...]:
        return write_families(
            self.num_conversations, self.branches, self.branch_turn, self._root, self._branch
        )

    def _root(self, root: int) -> tuple[Line, ...]:
        name = str(root)
        lines = [self._line(name, turn) for turn in range(1, self._turns(name) + 1)]
        if self.system_prompts:
            system = self._system(root % self.system_prompts)
            lines[0] = Line(parts=(system, *lines[0].parts), turn=lines[0].turn)
        return tuple(lines)

    def _branch(self, root: int, number: int) -> tuple[Line, ...]:
        name = f"{root}.{number}"
        return tuple(
            self._line(name, turn) for turn in range(self.branch_turn + 1, self._turns(name) + 1)
        )

    def _line(self, name: str, turn: int) -> Line:
        request = self.request_length
        if turn == 1 and self.first_length is not None:
            request = self.first_length
        length = draw_amount(request, self.draw("request", name, turn))
        return Line(
            parts=(Part(key=f"chat/{name}/{turn}", length=length),),
            turn=Turn(
                output_length=draw_amount(self.output_length, self.draw("output", name, turn)),
                think_s=self._think_s(name, turn),
            ),
        )

    def _think_s(self, name: str, turn: int) -> float:
        if turn == 1:
            return 0.0  # nothing was answered yet
        return draw_seconds(self.think_s, self.draw("think", name, turn))

    def _turns(self, name: str) -> int:
        return draw_amount(self.turns, self.draw("turns", name))

    def _system(self, number: int) -> Part:
        length = draw_amount(self.system_length, self.draw("system", number))
        return Part(key=f"system/{number}", length=length, role="system")
