"""What a run's pod says: why it does not begin, or how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kvloop.operator.runs.summary import Summary, read_summary

Pod = Mapping[str, Any]

_IMAGE = (
    *("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"),
    *("InvalidImageName", "RegistryUnavailable", "ImageInspectError"),
)
_CONFIG = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_LATE_S = 30.0
"""After its grace period a pod that is still there may be of a machine that is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The load has not begun."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """It goes on."""

    started_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The container is gone, or the pod was taken away."""

    reason: str
    """Of a run without a summary."""
    message: str
    summary: Summary | None = None
    started_at: str = ""
    finished_at: str = ""


PodState = Waiting | Running | Ended


def pod_state(pod: Pod, container: str) -> PodState:
    """Of the pod's one container that matters."""
    status = pod.get("status", {})
    found = next((c for c in _containers(status) if c.get("name") == container), {})
    state = found.get("state", {})
    if "terminated" in state:
        return _ended(status, state["terminated"])
    if status.get("phase") == "Failed":  # the kubelet ended the pod, or lost it
        return _taken_away(status, found.get("lastState", {}).get("terminated"))
    if "running" in state:
        return Running(started_at=state["running"].get("startedAt", ""))
    return _waiting(status, state.get("waiting", {}))


def is_at_work(pod: Pod, container: str, now: datetime) -> bool:
    """Also while it is being stopped: it writes its report then. Not for ever."""
    if not isinstance(pod_state(pod, container), Running):
        return False
    ends_at = pod["metadata"].get("deletionTimestamp")  # its grace period is in that
    return ends_at is None or (now - datetime.fromisoformat(ends_at)).total_seconds() < _LATE_S


def _containers(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from status.get("containerStatuses") or ()


def _waiting(status: Mapping[str, Any], waiting: Mapping[str, Any]) -> Waiting:
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _IMAGE:
        return Waiting(reason="ImagePullFailed", message=f"{reason}: {message}".removesuffix(": "))
    if reason in _CONFIG:
        return Waiting(reason="InvalidConfig", message=f"{reason}: {message}".removesuffix(": "))
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            words = condition.get("message", "")
            is_volume = "persistentvolumeclaim" in words.lower()
            reason = "VolumeNotMounted" if is_volume else "InsufficientCapacity"
            return Waiting(reason=reason, message=words)
    return Waiting(
        reason="Starting",
        message="the pod's container is being made: volumes, secrets, image",
    )


def _ended(status: Mapping[str, Any], terminated: Mapping[str, Any]) -> Ended:
    text, code = terminated.get("message", ""), terminated.get("exitCode")
    reason, message = _words(status, terminated, _last_line(text), code)
    return Ended(
        reason=reason,
        message=message,
        summary=read_summary(text),
        started_at=terminated.get("startedAt") or "",
        finished_at=terminated.get("finishedAt") or "",
    )


def _words(
    status: Mapping[str, Any], terminated: Mapping[str, Any], line: str, code: object
) -> tuple[str, str]:
    if status.get("reason") == "Evicted":
        return "Evicted", status.get("message", "")
    if terminated.get("reason") == "OOMKilled":
        return "OutOfMemory", "the container took more memory than resources.limits.memory"
    if code == 2:
        return "BadInput", line or "a flag is wrong"
    if code == 0:
        return "NoSummary", "the container ended well, but left no summary of a benchmark"
    return "Crashed", f"exit code {code}: {line}".removesuffix(": ")


def _taken_away(status: Mapping[str, Any], last: Mapping[str, Any] | None) -> Ended:
    """`last`: how the container ended that the kubelet lost sight of, if it ran at all."""
    if last is not None and not status.get("reason"):
        return _ended(status, last)
    return Ended(
        reason=status.get("reason") or "PodFailed",
        message=status.get("message") or "the pod ended before its container ran",
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""
