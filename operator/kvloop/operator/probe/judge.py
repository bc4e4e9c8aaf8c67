"""What two turns and the nodes' counters say of the loop: pure.

A stage that was not seen is unknown, never well.
"""

from __future__ import annotations

from kvloop.operator.nodes.answers import CanaryReport, Stage, StageName
from kvloop.operator.probe.chat import Turn
from kvloop.operator.probe.counters import Counters

NO_STORAGE = "decode stores no page: no cache is attached, or spec.offload.enabled is false"

_RESTARTED = "a node began anew meanwhile: its counters went back"


def judge(
    first: Turn,
    second: Turn | None,
    before: Counters,
    after: Counters,
    *,
    page_size: int,
    has_storage: bool,
    fault: str = "",
) -> list[Stage]:
    """The three stages; `second` is None where it was not answered, and `fault` says why."""
    transfer = _transfer(before, after)
    if not has_storage:
        return [transfer, _skipped("write_back", NO_STORAGE), _skipped("reuse", NO_STORAGE)]
    if second is None:
        reuse = Stage(stage="reuse", state="failed", reason=f"turn 2 was not answered: {fault}")
    else:
        reuse = _reuse(first, second, page_size)
    return [transfer, _write_back(before, after, reuse), reuse]


def unanswered(fault: str) -> list[Stage]:
    """Of a first turn that failed."""
    return [
        Stage(stage="transfer", state="failed", reason=f"turn 1 was not answered: {fault}"),
        _skipped("write_back", "turn 1 was not answered"),
        _skipped("reuse", "turn 1 was not answered"),
    ]


def report(stages: list[Stage], *, started_at: float, seconds: float) -> CanaryReport:
    """Whole only where every stage was seen to be."""
    broken = next((stage.stage for stage in stages if stage.state == "failed"), None)
    is_whole = all(stage.state == "ok" for stage in stages)
    return CanaryReport(
        result="broken" if broken else "whole" if is_whole else "unknown",
        broken_stage=broken,
        stages=stages,
        started_at=started_at,
        seconds=seconds,
    )


def _transfer(before: Counters, after: Counters) -> Stage:
    """SGLang's decode computes no prompt; still, only what was counted was seen."""
    faults = (*before.faults, *after.faults)
    if after.transfers is None:
        return _unseen("transfer", "no node counts transfers", faults)
    if _grew(before.transfers, after.transfers, before):
        return Stage(stage="transfer", state="ok")
    if faults:
        return _unseen("transfer", "no transfer was counted", faults)
    if after.transfers < (before.transfers or 0.0):
        return _unseen("transfer", "", (_RESTARTED,))
    reason = "turn 1 was answered, but no node counted a transfer of KV"
    return Stage(stage="transfer", state="failed", reason=reason)


def _write_back(before: Counters, after: Counters, reuse: Stage) -> Stage:
    if reuse.state == "ok":
        return Stage(stage="write_back", state="ok", reason="turn 2 found what decode stored")
    faults = (*before.faults, *after.faults)
    if after.backed_up is None:
        return _unseen("write_back", "decode nodes do not count what they store", faults)
    if _grew(before.backed_up, after.backed_up, before):
        return Stage(stage="write_back", state="ok")
    if faults:
        return _unseen("write_back", "no stored token was counted", faults)
    if after.backed_up < (before.backed_up or 0.0):
        return _unseen("write_back", "", (_RESTARTED,))
    return Stage(stage="write_back", state="failed", reason="decode stored no token of its answer")


def _reuse(first: Turn, second: Turn, page_size: int) -> Stage:
    """Pages beyond turn 1's prompt were computed by decode alone: prefill can have them from the
    shared cache only."""
    if second.cached_tokens is None:
        reason = "answers do not tell cached_tokens"
        return Stage(stage="reuse", state="unknown", reason=reason, is_observable=False)
    of_prompt = first.prompt_tokens // page_size
    expected = (first.prompt_tokens + first.completion_tokens - 1) // page_size - of_prompt
    found = max(0, second.cached_tokens // page_size - of_prompt)
    told = f"{min(found, expected)} of {expected} pages that decode wrote were found by turn 2"
    if expected < 1:
        reason = "turn 1's answer was shorter than a page"
        return Stage(stage="reuse", state="unknown", reason=reason)
    if not found:
        hint = "; a template that writes an answer otherwise than it was generated does this, too"
        return Stage(stage="reuse", state="failed", reason=told + hint)
    if second.storage_tokens is not None and second.storage_tokens < page_size:
        reason = f"{told}, but none of them in the shared cache"
        return Stage(stage="reuse", state="failed", reason=reason)
    return Stage(stage="reuse", state="ok", reason=told)


def _grew(first: float | None, then: float, before: Counters) -> bool:
    """A node that was not asked at first would bring all that it ever counted."""
    return not before.faults and then > (first or 0.0)


def _unseen(stage: StageName, what: str, faults: tuple[str, ...]) -> Stage:
    reason = "; ".join(words for words in (what, *faults) if words)
    return Stage(stage=stage, state="unknown", reason=reason, is_observable=bool(faults))


def _skipped(stage: StageName, reason: str) -> Stage:
    return Stage(stage=stage, state="skipped", reason=reason)
