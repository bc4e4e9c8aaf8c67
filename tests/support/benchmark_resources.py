"""MultiTurnBenchmarks and what a cluster would make of them."""

from __future__ import annotations

from typing import Any

from kvloop.operator.build import benchmark as build
from kvloop.operator.parse import parse_benchmark
from kvloop.operator.settings import Settings
from kvloop.operator.types.benchmark import MultiTurnBenchmark

SETTINGS = Settings(node_image="registry.example/kvloop-node:1")
URL = "http://demo-router.apps.svc:8000"


def manifest(*, uid: str = "uid-of-mtb", generation: int = 1, **spec: Any) -> dict[str, Any]:
    """As the API gives it; asks a URL unless `target` says otherwise."""
    return {
        "apiVersion": "kvloop.dev/v1alpha1",
        "kind": build.KIND,
        "metadata": {
            "name": "chats",
            "namespace": "apps",
            "uid": uid,
            "generation": generation,
        },
        "spec": {"target": {"url": URL}} | spec,
    }


def benchmark(*, uid: str = "uid-of-mtb", **spec: Any) -> MultiTurnBenchmark:
    """Parsed."""
    return parse_benchmark(manifest(uid=uid, **spec))


def pod_of(
    job: dict[str, Any], *, state: dict[str, Any], phase: str = "Running", **status: Any
) -> dict[str, Any]:
    """The Job's pod, its container in this state."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{job['metadata']['name']}-abcde",
            "namespace": job["metadata"]["namespace"],
            "labels": job["spec"]["template"]["metadata"]["labels"],
        },
        "status": {
            "phase": phase,
            "containerStatuses": [{"name": build.CONTAINER, "state": state}],
            **status,
        },
    }


def terminated(message: str = "", *, code: int = 0, reason: str = "Completed") -> dict[str, Any]:
    """State of a container that has ended."""
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason,
            "message": message,
            "startedAt": "2026-01-01T00:00:10Z",
            "finishedAt": "2026-01-01T00:01:00Z",
        }
    }


def over(job: dict[str, Any], *, kind: str = "Complete", reason: str = "") -> dict[str, Any]:
    """The Job, ended."""
    condition = {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": "Job has reached the specified backoff limit" if kind == "Failed" else "",
        "lastTransitionTime": "2026-01-01T00:01:02Z",
    }
    return {**job, "status": {"conditions": [condition]}}
