"""SGLang's router, and what it may see of the API."""

from __future__ import annotations

from typing import Any

from kvloop.operator.build.pd_cluster.context import Context
from kvloop.operator.build.pd_cluster.deployment import deployment
from kvloop.operator.build.pd_cluster.pod import http_probe
from kvloop.operator.build.sglang.flags import METRICS_PORT, router_words
from kvloop.operator.build.sglang.pod import SGLangPod, pod_template
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.names import REVISION, ROUTER_PORT

_STOP_S = 25


def build_router(context: Context) -> Manifest:
    """The Deployment NAME-router; its pods know the nodes of their own generation only."""
    settings = context.spec.router
    made = SGLangPod(
        role="router",
        settings=settings,
        module="sglang_router.launch_router",
        args=router_words(context),
        ports={"http": ROUTER_PORT, "metrics": METRICS_PORT},
        probes=_probes(),
        grace_seconds=settings.finish_seconds + _STOP_S,
        account=account_name(context),
        has_token=True,
        labels={REVISION: context.generation},
        metrics="metrics",
    )
    return deployment(context, "router", settings.replicas, pod_template(context, made))


def account_name(context: Context) -> str:
    """Of the router's ServiceAccount, its Role and their RoleBinding."""
    return f"{context.name}-router"


def build_rights(context: Context) -> list[Manifest]:
    """The router finds nodes by watching the pods of its namespace, and may do nothing else."""
    rbac, group, name = (
        "rbac.authorization.k8s.io/v1",
        "rbac.authorization.k8s.io",
        account_name(context),
    )
    metadata: dict[str, Any] = {"name": name, "labels": context.labels("router")}
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    subject = {
        "kind": "ServiceAccount",
        "name": name,
        "namespace": context.cluster.metadata.namespace,
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": rbac, "kind": "Role", "metadata": metadata, "rules": [rule]},
        {
            "apiVersion": rbac,
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [subject],
        },
    ]


def _probes() -> dict[str, Any]:
    """It is ready when it knows a healthy prefill and a healthy decode node."""
    return {
        "startupProbe": http_probe("/liveness", 2, 90),
        "readinessProbe": http_probe("/readiness", 2, 3),
        "livenessProbe": http_probe("/liveness", 10, 6),
    }
