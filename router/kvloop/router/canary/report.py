"""What a canary found: the answer of `POST /canary` and `GET /canary`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

Stage = Literal["transfer", "write_back", "reuse"]
State = Literal["ok", "failed", "unknown", "skipped"]
Result = Literal["whole", "broken", "unknown"]
STAGES: tuple[Stage, ...] = ("transfer", "write_back", "reuse")
STATES: tuple[State, ...] = ("ok", "failed", "unknown", "skipped")
RESULTS: tuple[Result, ...] = ("whole", "broken", "unknown")
_WORST: tuple[State, ...] = ("failed", "unknown", "skipped", "ok")


class StageReport(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of the loop. What was not observed is `unknown`, never `ok`."""

    stage: Stage
    state: State
    seconds: float = 0.0
    expected: dict[str, int] = {}
    found: dict[str, int] = {}
    """Under the names of `expected`."""
    reason: str = ""
    """In words; empty where the stage is ok."""


class PairReport(msgspec.Struct, frozen=True, kw_only=True):
    """One two-turn chat; the nodes are URLs."""

    decode: str
    prefill: str
    """Of turn 1."""
    reader: str
    """The prefill node of turn 2."""
    stages: tuple[StageReport, ...]
    page_size: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    note: str | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One canary."""

    result: Result
    """whole: every stage of every pair is ok; broken: one failed; unknown: neither."""
    broken_stage: Stage | None
    """The first that failed."""
    stages: tuple[StageReport, ...]
    """Each as its worst pair has it."""
    pairs: tuple[PairReport, ...]
    notes: tuple[str, ...] = ()
    trigger: Literal["demand", "schedule"]
    started_at: float
    """Seconds since the epoch."""
    seconds: float


def same(state: State, reason: str, stages: Sequence[Stage] = STAGES) -> tuple[StageReport, ...]:
    """These stages, all in one state for one reason."""
    return tuple(StageReport(stage=stage, state=state, reason=reason) for stage in stages)


def merge(pairs: Iterable[Sequence[StageReport]]) -> tuple[StageReport, ...]:
    """Each stage as the pair has it that is worst off, of equals the slowest."""
    all_pairs = list(pairs)
    merged = []
    for index in range(len(STAGES)):
        column = [stages[index] for stages in all_pairs]
        worst = min(column, key=lambda one: (_WORST.index(one.state), -one.seconds))
        merged.append(worst)
    return tuple(merged)


def result_of(stages: Sequence[StageReport]) -> Result:
    """Of all of them together."""
    states = {stage.state for stage in stages}
    if "failed" in states:
        return "broken"
    return "whole" if states == {"ok"} else "unknown"


def broken_stage(stages: Sequence[StageReport]) -> Stage | None:
    """The first that failed, in the loop's order."""
    return next((one.stage for one in stages if one.state == "failed"), None)
