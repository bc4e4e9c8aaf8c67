"""The account of all chats: expected and found pages, and where they were found. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from kvloop.benchmark.reuse.load import ChatLoad
from kvloop.benchmark.reuse.turn import Count, Turn, count_pages
from kvloop.benchmark.sample import Failure, Sources

SCHEMA = "kvloop.bench.reuse/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The later turns of one number, or all of them."""

    name: str
    counts: Sequence[Count]

    @property
    def expected(self) -> int:
        return sum(count.expected for count in self.counts)

    @property
    def found(self) -> int:
        return sum(count.found for count in self.counts)

    @property
    def drifted(self) -> int:
        """Prompts that do not repeat the ids of the turns before."""
        return sum(count.has_drifted for count in self.counts)

    @property
    def sources(self) -> Sources:
        """Prompt tokens."""
        return add_sources(count.turn.sources for count in self.counts)

    @property
    def ttft_s(self) -> float:
        """Median."""
        return statistics.median([c.turn.ttft_s for c in self.counts] or [0.0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What one run of a load showed."""

    name: str
    load: ChatLoad
    page_size: int
    turns: Sequence[Turn]
    failures: Sequence[Failure]
    duration_s: float

    @property
    def counts(self) -> list[Count]:
        """One for each later turn, by chat and turn."""
        by_place = {(turn.chat, turn.turn): turn for turn in self.turns}
        return [
            count_pages(by_place[chat, number - 1], turn, self.page_size)
            for (chat, number), turn in sorted(by_place.items())
            if number > 1
        ]

    @property
    def rows(self) -> list[Row]:
        """One for each later turn number."""
        counts = self.counts
        return [
            Row(name=str(number), counts=[c for c in counts if c.turn.turn == number])
            for number in range(2, self.load.turns + 1)
        ]

    @property
    def total(self) -> Row:
        return Row(name="all", counts=self.counts)

    @property
    def num_short(self) -> int:
        """Answers of fewer than four pages' tokens: too short for a proof."""
        return sum(turn.completion_tokens < 4 * self.page_size for turn in self.turns)

    @property
    def is_whole(self) -> bool:
        """Every turn was answered and found every full page of the turns before it."""
        total = self.total
        num_turns = self.load.chats * self.load.turns
        return len(self.turns) == num_turns and total.found == total.expected

    def misses(self) -> list[Count]:
        """Turns that found fewer pages than there were."""
        return [count for count in self.counts if count.missed]


def add_sources(each: Iterable[Sources]) -> Sources:
    """The sum of each field."""
    known = list(each)
    return Sources(**{f.name: sum(getattr(s, f.name) for s in known) for f in fields(Sources)})


def why(count: Count, page_size: int) -> str:
    """In words, what a turn with missing pages shows."""
    turn, s = count.turn, count.turn.sources
    text = (
        f"chat {turn.chat}, turn {turn.turn}: expected {count.expected} pages, found {count.found} "
        f"(tokens: L1 {s.device}, L2 {s.host}, L3 {s.storage}, held by decode "
        f"{s.transfer_skipped}, computed {s.computed})"
    )
    if count.repeated_tokens // page_size < count.expected:
        text += (
            f"; the prompt repeats only {count.repeated_tokens} of {count.earlier_tokens} earlier "
            "tokens"
        )
    if turn.fallback:
        text += f"; fallback {turn.fallback}"
    return text


def to_json(account: Account) -> dict[str, Any]:
    """Everything but the ids."""
    return {
        "schema": SCHEMA,
        "name": account.name,
        "load": asdict(account.load),
        "page_size": account.page_size,
        "duration_s": account.duration_s,
        "is_whole": account.is_whole,
        "short_answers": account.num_short,
        "rows": [_row(row) for row in (*account.rows, account.total)],
        "misses": [why(count, account.page_size) for count in account.misses()],
        "failures": [asdict(failure) for failure in account.failures],
        "turns": [_turn(turn) for turn in account.turns],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "turn": row.name,
        "chats": len(row.counts),
        "expected_pages": row.expected,
        "found_pages": row.found,
        "drifted": row.drifted,
        "tokens": asdict(row.sources),
        "ttft_p50_s": row.ttft_s,
    }


def _turn(turn: Turn) -> dict[str, Any]:
    return {
        "chat": turn.chat,
        "turn": turn.turn,
        "prompt_tokens": len(turn.prompt_ids),
        "completion_tokens": turn.completion_tokens,
        "sources": asdict(turn.sources),
        "prefill_node": turn.prefill_node,
        "decode_node": turn.decode_node,
        "fallback": turn.fallback,
        "ttft_s": turn.ttft_s,
    }
