"""Why pods do not serve."""

from __future__ import annotations

from typing import Any

import pytest
from shared_caches import pod

from kvloop.operator.pod_trouble import is_ready, num_restarts, trouble_of, worst


def _waiting(reason: str, message: str = "why", **more: Any) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return {"containerStatuses": [{"state": state, **more}]}


def _ended(reason: str, code: int, message: str = "") -> dict[str, Any]:
    return {"terminated": {"reason": reason, "exitCode": code, "message": message}}


def _unscheduled(message: str) -> dict[str, Any]:
    return {
        "conditions": [{"type": "PodScheduled", "status": "False", "message": message}],
        "phase": "Pending",
    }


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (_waiting("ImagePullBackOff"), "ImagePullFailed", "ImagePullBackOff: why"),
        (_waiting("CreateContainerConfigError"), "InvalidConfig", "why"),
        (_unscheduled("0/1 nodes: Insufficient memory"), "InsufficientCapacity", "memory"),
        (
            _unscheduled('persistentvolumeclaim "x" not found'),
            "VolumeNotMounted",
            '"x" not found',
        ),
        (
            _waiting("CrashLoopBackOff", lastState=_ended("Error", 1, "a\nlast line\n")),
            "CrashLooping",
            "exit code 1, 0 restarts: last line",
        ),
        (
            _waiting("CrashLoopBackOff", lastState=_ended("OOMKilled", 137)),
            "OutOfMemory",
            "limit",
        ),
        ({"phase": "Failed", "message": "low on disk"}, "Evicted", "low on disk"),
    ],
)
def test_a_pod_that_does_not_serve_says_why(
    status: dict[str, Any], reason: str, words: str
) -> None:
    found = trouble_of(pod("p", "c", ready=False, **status))

    assert found is not None
    assert found.reason == reason
    assert words in found.message
    assert "pod p" in found.message


def test_a_pod_that_begins_serves_or_ends_is_no_trouble() -> None:
    ending = pod("p", "c", ready=False, **_waiting("ImagePullBackOff"))
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

    assert trouble_of(pod("p", "c")) is None
    assert trouble_of(pod("p", "c", ready=False, **_waiting("ContainerCreating"))) is None
    assert trouble_of(ending) is None


def test_a_pod_that_ends_serves_no_more() -> None:
    ending = pod("p", "c")
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"

    assert is_ready(pod("p", "c"))
    assert not is_ready(ending)


def test_the_gravest_trouble_is_told() -> None:
    crashing = _waiting("CrashLoopBackOff", lastState=_ended("Error", 1))
    found = worst(
        [
            pod("a", "c", ready=False, **crashing),
            pod("b", "c", ready=False, **_waiting("ErrImagePull")),
            pod("d", "c"),
        ]
    )

    assert found is not None and found.reason == "ImagePullFailed"


def test_restarts_of_all_containers_count() -> None:
    statuses = [{"restartCount": 2}, {"restartCount": 1}]

    assert num_restarts(pod("p", "c", containerStatuses=statuses)) == 3
