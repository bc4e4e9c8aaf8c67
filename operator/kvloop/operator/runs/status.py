"""The status of a benchmark, and what is told of its changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kvloop.operator.conditions import as_status, conditions_of, with_condition
from kvloop.operator.controllers.base import Event
from kvloop.operator.runs.outcome import Outcome
from kvloop.operator.runs.summary import results
from kvloop.operator.types.base import Condition
from kvloop.operator.types.benchmark import MultiTurnBenchmarkStatus

Status = Mapping[str, Any]
FINAL = ("Succeeded", "Failed")
WRONG_SPEC = "InvalidConfig"


def build_status(
    before: Status,
    outcome: Outcome,
    *,
    generation: int,
    now: datetime,
    job: str = "",
    config_map: str = "",
) -> dict[str, Any]:
    """The whole status; a field that has nothing to say is empty, so that none of another run
    stays."""
    empty = MultiTurnBenchmarkStatus().model_dump(by_alias=True)
    # A wrong spec is no run that ended; a time of its own at each look would never settle.
    has_ended = outcome.is_final and outcome.reason != WRONG_SPEC
    finished = outcome.finished_at or (timestamp(now) if has_ended else "")
    return {
        **empty,
        "observedGeneration": generation,
        "phase": outcome.phase,
        "reason": outcome.reason,
        "message": outcome.message,
        "conditions": as_status(_conditions(before, outcome, generation, now)),
        "job": job,
        "configMap": config_map,
        "startedAt": outcome.started_at,
        "finishedAt": finished,
        **(results(outcome.summary) if outcome.summary is not None else {}),
    }


def _conditions(
    before: Status, outcome: Outcome, generation: int, now: datetime
) -> Sequence[Condition]:
    conditions = conditions_of(before)
    for name, phase in (("Complete", "Succeeded"), ("Failed", "Failed")):
        conditions = with_condition(
            conditions,
            type=name,
            status="True" if outcome.phase == phase else "False",
            reason=outcome.reason,
            message=outcome.message,
            generation=generation,
            now=now,
        )
    return conditions


def events(before: Status, after: Status) -> list[Event]:
    """One for each change of phase or reason."""
    if (before.get("phase"), before.get("reason")) == (after["phase"], after["reason"]):
        return []
    words = after["message"] or after["reason"]
    if after["phase"] == "Succeeded":
        words = _success(after)
    is_bad = after["phase"] == "Failed" or after["reason"] in _TROUBLE
    return [Event(type="Warning" if is_bad else "Normal", reason=after["reason"], message=words)]


_TROUBLE = (
    *("ImagePullFailed", "InvalidConfig", "InsufficientCapacity"),
    *("VolumeNotMounted", "InputMissing"),
)


def _success(status: Status) -> str:
    words = [status["message"]]
    if status["hit"]:
        words.append(f"hit rate {status['hit']}")
    if status["configMap"]:
        words.append(f"report in ConfigMap {status['configMap']}")
    return "; ".join(word for word in words if word) or "done"


def is_done(status: Status, job: str) -> bool:
    """Whether this very run has ended: it is never done twice."""
    is_over = status.get("phase") in FINAL and status.get("reason") != WRONG_SPEC
    return status.get("job") == job and is_over


def timestamp(now: datetime) -> str:
    """As Kubernetes writes it."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_since(text: str, now: datetime) -> float:
    """Since a time as Kubernetes writes it."""
    return (now - datetime.fromisoformat(text)).total_seconds()
