"""Why pods do not serve, in one of few reasons: pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Pod = Mapping[str, Any]
Reason = Literal[
    "ImagePullFailed",
    "InvalidConfig",
    "InsufficientCapacity",
    "OutOfMemory",
    "CrashLooping",
    "Evicted",
    "VolumeNotMounted",
]
REASONS: tuple[Reason, ...] = (
    "ImagePullFailed",
    "InvalidConfig",
    "InsufficientCapacity",
    "OutOfMemory",
    "CrashLooping",
    "Evicted",
    "VolumeNotMounted",
)
"""The gravest first: what only a person can mend."""
_IMAGE = (
    *("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"),
    *("InvalidImageName", "RegistryUnavailable", "ImageInspectError"),
)
_CONFIG = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Of one pod."""

    reason: Reason
    message: str
    """With the pod's name."""


def is_ready(pod: Pod) -> bool:
    """And not about to go."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    return _condition(pod, "Ready").get("status") == "True"


def num_restarts(pod: Pod) -> int:
    """Of its containers together."""
    return sum(int(one.get("restartCount", 0)) for one in _containers(pod))


def worst(pods: Iterable[Pod]) -> Trouble | None:
    """The gravest of those that do not serve; None where they are only starting or ending."""
    found = [trouble for pod in pods if (trouble := trouble_of(pod)) is not None]
    return min(found, key=lambda one: REASONS.index(one.reason), default=None)


def trouble_of(pod: Pod) -> Trouble | None:
    """None of a pod that serves, begins, or ends."""
    if is_ready(pod) or pod["metadata"].get("deletionTimestamp"):
        return None
    found = next(_troubles(pod), None)
    if found is None:
        return None
    reason, words = found
    return Trouble(reason=reason, message=f"pod {pod['metadata']['name']}: {words}")


def _troubles(pod: Pod) -> Iterator[tuple[Reason, str]]:
    status = pod.get("status", {})
    if status.get("phase") == "Failed":
        yield "Evicted", status.get("message") or status.get("reason") or "it ended"
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        yield _unscheduled(scheduled.get("message", ""))
    for container in _containers(pod):
        yield from _of_container(container)


def _unscheduled(message: str) -> tuple[Reason, str]:
    if "persistentvolumeclaim" in message.lower():
        return "VolumeNotMounted", message
    return "InsufficientCapacity", f"no machine takes it: {message}"


def _of_container(container: Mapping[str, Any]) -> Iterator[tuple[Reason, str]]:
    waiting = container.get("state", {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    words = f"{reason}: {message}".removesuffix(": ")
    if reason in _IMAGE:
        yield "ImagePullFailed", words
    if reason in _CONFIG:
        yield "InvalidConfig", words
    ended = _last_end(container)
    if ended is None:
        return
    if ended.get("reason") == "OOMKilled":
        yield "OutOfMemory", "it took more memory than its limit"
    elif reason == "CrashLoopBackOff" or ended.get("exitCode"):
        count = container.get("restartCount", 0)
        text = f"it ended with exit code {ended.get('exitCode')}, {count} restarts"
        yield "CrashLooping", f"{text}: {_last_line(ended.get('message', ''))}".removesuffix(": ")


def _last_end(container: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for state in (container.get("state") or {}, container.get("lastState") or {}):
        if "terminated" in state:
            found: Mapping[str, Any] = state["terminated"]
            return found
    return None


def _containers(pod: Pod) -> Sequence[Mapping[str, Any]]:
    status = pod.get("status", {})
    return [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]


def _condition(pod: Pod, name: str) -> Mapping[str, Any]:
    conditions = pod.get("status", {}).get("conditions") or ()
    return next((one for one in conditions if one.get("type") == name), {})


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""
