"""What came of a run, from its Job, its pod and its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kvloop.operator.runs.pod_state import Ended, Pod, PodState, Running, Waiting, pod_state
from kvloop.operator.runs.summary import Summary

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """As the status has it."""

    phase: Phase
    reason: str
    message: str
    summary: Summary | None = None
    started_at: str = ""
    finished_at: str = ""

    @property
    def is_final(self) -> bool:
        """The run is over."""
        return self.phase in ("Succeeded", "Failed")


def going_on(pods: Sequence[Pod], container: str) -> Outcome:
    """Of a Job that has not ended."""
    if not pods:
        message = "the Job has no pod yet; kubectl describe job tells why, if it stays so"
        return Outcome(phase="Pending", reason="Starting", message=message)
    match _last(pods, container):
        case Waiting(reason=reason, message=message):
            return Outcome(phase="Pending", reason=reason, message=message)
        case Running(started_at=started_at):
            return _running(started_at)
        case Ended(started_at=started_at):
            return _running(started_at)  # the Job's own end is a moment away


def _running(started_at: str) -> Outcome:
    message = "the load is being sent"
    return Outcome(phase="Running", reason="Running", message=message, started_at=started_at)


def stopping() -> Outcome:
    """Of a run that was stopped, and whose pod is still at work."""
    message = "the run was stopped; its pod still writes what it measured"
    return Outcome(phase="Running", reason="Stopping", message=message)


def ended(
    job: Mapping[str, Any],
    pods: Sequence[Pod],
    container: str,
    reported: Summary | None,
    before: str = "",
) -> Outcome:
    """Of a Job that has ended; `reported` is the summary in its ConfigMap, if any.

    `before`: what stood in the way last, of a Job that ran out of time.
    """
    condition = end_of(job)
    assert condition is not None
    state = _last(pods, container) if pods else None
    left = state if isinstance(state, Ended) else None
    summary = (left.summary if left else None) or reported
    at = (left.finished_at if left else "") or condition.get("lastTransitionTime", "")
    started = (left.started_at if left else "") or ""
    if condition.get("reason") == "DeadlineExceeded":
        outcome = _too_long(job, summary, before)
    elif summary is not None and not _was_killed(condition, summary):
        outcome = from_summary(summary)
    else:
        outcome = _without_summary(condition, left)
    return Outcome(
        phase=outcome.phase,
        reason=outcome.reason,
        message=outcome.message,
        summary=summary,
        started_at=str((summary or {}).get("started_at") or started),
        finished_at=at,
    )


def from_summary(summary: Summary) -> Outcome:
    """As the run itself tells it."""
    return Outcome(
        phase="Succeeded" if summary.get("phase") == "Succeeded" else "Failed",
        reason=str(summary.get("reason") or "Crashed"),
        message=str(summary.get("message") or ""),
        summary=summary,
        started_at=str(summary.get("started_at") or ""),
    )


def vanished(job: str, reported: Summary | None) -> Outcome:
    """Of a Job that somebody deleted before its end was seen."""
    if reported is not None:
        return from_summary(reported)
    message = f"Job {job} was deleted before its end was seen; change the spec to run it anew"
    return Outcome(phase="Failed", reason="JobDeleted", message=message)


def end_of(job: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The Job's condition that says it is over; None while it is not."""
    for condition in job.get("status", {}).get("conditions") or ():
        if condition.get("type") in ("Complete", "Failed") and condition.get("status") == "True":
            found: Mapping[str, Any] = condition
            return found
    return None


def _was_killed(condition: Mapping[str, Any], summary: Summary) -> bool:
    """Well measured, but the container failed while it wrote its report."""
    return condition.get("type") == "Failed" and summary.get("phase") == "Succeeded"


def _too_long(job: Mapping[str, Any], summary: Summary | None, before: str) -> Outcome:
    limit = job.get("spec", {}).get("activeDeadlineSeconds")
    words = f"not done within timeoutSeconds {limit}"
    more = str((summary or {}).get("message") or before)
    message = f"{words}; {more}" if more else words
    return Outcome(phase="Failed", reason="DeadlineExceeded", message=message)


def _without_summary(condition: Mapping[str, Any], left: Ended | None) -> Outcome:
    if left is not None:
        return Outcome(phase="Failed", reason=left.reason, message=left.message)
    told = condition.get("message") or condition.get("reason") or ""
    message = f"the Job's pod is gone: {told}".removesuffix(": ")
    return Outcome(phase="Failed", reason="PodLost", message=message)


def _last(pods: Sequence[Pod], container: str) -> PodState:
    """A Job without retries has one pod; of several the newest counts."""
    newest = max(pods, key=lambda p: str(p.get("metadata", {}).get("creationTimestamp", "")))
    return pod_state(newest, container)
