"""Conditions of a status: what is true, since when, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from kvloop.operator.types.base import Condition

ConditionStatus = Literal["True", "False", "Unknown"]
_MAX_MESSAGE = 4096
"""Characters; the API takes 32,768, people read fewer."""


def with_condition(
    conditions: Sequence[Condition],
    *,
    type: str,  # noqa: A002 - the field's name
    status: ConditionStatus,
    reason: str,
    message: str,
    generation: int,
    now: datetime,
) -> list[Condition]:
    """The conditions with this one in its place, else at the end.

    `last_transition_time` is `now` only where the status is another than before.
    """
    before = condition(conditions, type)
    is_same = before is not None and before.status == status
    made = Condition(
        type=type,
        status=status,
        reason=reason,
        message=_short(message),
        observed_generation=generation,
        last_transition_time=before.last_transition_time if before and is_same else _time(now),
    )
    if before is None:
        return [*conditions, made]
    return [made if one.type == type else one for one in conditions]


def condition(conditions: Sequence[Condition], name: str) -> Condition | None:
    """The one of that type."""
    return next((one for one in conditions if one.type == name), None)


def conditions_of(status: Mapping[str, Any] | None) -> list[Condition]:
    """Those in the status of a resource as the API gives it."""
    return [Condition.model_validate(one) for one in (status or {}).get("conditions", [])]


def as_status(conditions: Sequence[Condition]) -> list[dict[str, Any]]:
    """For the status of a resource."""
    return [one.model_dump(by_alias=True) for one in conditions]


def _time(now: datetime) -> str:
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _short(message: str) -> str:
    return message if len(message) <= _MAX_MESSAGE else message[: _MAX_MESSAGE - 1] + "…"
