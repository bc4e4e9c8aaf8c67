"""One condition, before it is dated."""

from __future__ import annotations

from dataclasses import dataclass

from kvloop.operator.conditions import ConditionStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a condition says, and why."""

    status: ConditionStatus
    reason: str
    message: str = ""


def no(reason: str, message: str) -> Verdict:
    return Verdict(status="False", reason=reason, message=message)


def unknown(reason: str, message: str) -> Verdict:
    return Verdict(status="Unknown", reason=reason, message=message)
