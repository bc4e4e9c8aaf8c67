"""A comparison as data: what `kvloop bench compare --json` writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from kvloop.benchmark.arms import Arm

SCHEMA = "kvloop.bench.compare/1"

Verdict = Literal["regression", "maybe worse", "same", "maybe better", "improvement", "cannot tell"]
Better = Literal["lower", "higher"]
Scale = Literal["ratio", "points"]
"""ratio: change = b / a; points: change = b - a, of shares from 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two reports."""

    name: str
    """Its column's head."""
    file: str
    server: str
    model: str
    url: str
    version: str
    hardware: str
    started_at: str
    is_cut_short: bool
    num_failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number of both reports."""

    arm: Arm
    step: int
    rate: float | None
    """Requests a second that were offered; None: closed loop."""
    metric: str
    """Such as `ttft_p50`, `ttft_p50_later`, `ttft_p50_turn_3`."""
    unit: str
    better: Better
    scale: Scale
    a: float | None
    b: float | None
    change: float | None
    low: float | None
    high: float | None
    """The ends of the bootstrap's 95 % interval over conversations."""
    num_conversations: int
    """Of the smaller side."""
    tolerance: float | None
    """None: whatever its size, a change is none."""
    verdict: Verdict
    why: str = ""
    """Why it cannot be told, where the interval does not say."""

    @property
    def place(self) -> str:
        """Its arm, and its rate in a sweep."""
        return self.arm if self.rate is None else f"{self.arm} at {self.rate:g}/s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """B against A."""

    schema: str = SCHEMA
    a: Side
    b: Side
    is_paired: bool
    """Whether both held the same conversations, and each draw took the same ones of both."""
    differences: dict[str, tuple[Any, Any]]
    """Flags of the load that are not the same, with both values."""
    only_in_a: tuple[str, ...]
    only_in_b: tuple[str, ...]
    """Arms (and rates) that the other has not."""
    left_out: dict[str, int]
    """By arm: conversations left out of times, as one run did not answer the same turns."""
    answers_compared: int
    answers_different: int
    """Answers to the same turn of the same conversation in the same arm."""
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]
    rule: str
    """How verdicts are given, in words."""

    def of(self, verdict: Verdict) -> tuple[Row, ...]:
        """The rows with this verdict."""
        return tuple(row for row in self.rows if row.verdict == verdict)

    @property
    def has_regressed(self) -> bool:
        """Whether anything is worse than its tolerance allows."""
        return bool(self.of("regression"))
