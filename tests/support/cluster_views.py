"""Pods and Deployments of a PDCluster as the API server shows them."""

from __future__ import annotations

from typing import Any

from kvloop.operator.clusters.seen import Seen
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.names import REVISION, labels

NEW = "new"


def pod(
    role: str, number: int = 0, *, ready: bool = True, generation: str = NEW, **status: Any
) -> Manifest:
    """A pod; not ready ones run no container yet."""
    flag = "True" if ready else "False"
    since = status.pop("since", "2026-01-01T00:00:00Z")
    conditions = [
        {"type": kind, "status": flag, "lastTransitionTime": since}
        for kind in ("Ready", "ContainersReady", "kvloop.dev/paired")
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"demo-{role}-{number}",
            "namespace": "ns",
            "labels": {**labels(kind="pdc", name="demo", component=role), REVISION: generation},
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"volumes": []},
        "status": {"conditions": conditions, **status},
    }


def deployment(role: str, wanted: int = 1, /, **status: Any) -> Manifest:
    """One whose controller has done all."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": f"demo-{role}",
            "namespace": "ns",
            "generation": 1,
            "annotations": status.pop("annotations", {}),
        },
        "spec": {
            "replicas": wanted,
            "template": {"metadata": {"labels": {REVISION: NEW}}, "spec": {"containers": []}},
        },
        "status": {
            "observedGeneration": 1,
            "replicas": wanted,
            "updatedReplicas": wanted,
            **status,
        },
    }


def seen(*pods: Manifest, **deployments: Manifest) -> Seen:
    """All three roles, each with one ready pod, unless said otherwise."""
    roles = ("prefill", "decode", "router")
    return Seen(
        deployments={role: deployments.get(role, deployment(role)) for role in roles},
        pods=pods or [pod(role) for role in roles],
    )
