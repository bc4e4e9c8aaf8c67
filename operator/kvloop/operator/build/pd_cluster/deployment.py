"""One Deployment a role, under a name that stays: `kubectl scale` and autoscalers use it."""

from __future__ import annotations

from typing import Any

from kvloop.operator.build.pd_cluster.context import Context
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.names import SPEC_REPLICAS, selector
from kvloop.operator.revision import digest

TEMPLATE = "kvloop.dev/template"
"""Annotation: digest of the pod template that was wanted last."""


def deployment(context: Context, role: str, replicas: int, template: dict[str, Any]) -> Manifest:
    """Replicas are the resource's; the controller leaves those that others have set."""
    rollout, wanted = context.spec.rollout, context.labels(role)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": f"{context.name}-{role}",
            "labels": wanted,
            "annotations": {SPEC_REPLICAS: str(replicas), TEMPLATE: digest(template)},
        },
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 2,
            "progressDeadlineSeconds": rollout.timeout_seconds,
            "selector": {"matchLabels": selector(wanted)},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {
                    "maxSurge": rollout.max_surge,
                    "maxUnavailable": rollout.max_unavailable,
                },
            },
            "template": template,
        },
    }
