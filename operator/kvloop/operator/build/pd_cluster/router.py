"""The router's Deployment."""

from __future__ import annotations

from typing import Any

from kvloop.operator.build.pd_cluster.context import Context
from kvloop.operator.build.pd_cluster.deployment import deployment
from kvloop.operator.build.pd_cluster.flags import command_line
from kvloop.operator.build.pd_cluster.model import ModelSource, model_source
from kvloop.operator.build.pd_cluster.pod import (
    ATTACH_FILE,
    SECRET_FILE,
    Pod,
    http_probe,
    pod_template,
)
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.names import ROUTER_PORT, SECRETS_DIR

API_KEYS = "api-keys"
SETTLE_S = 5
"""Until every balancer knows that a pod is going."""
_STOP_S = 25


def build_router(context: Context) -> Manifest:
    """The Deployment NAME-router."""
    settings = context.spec.router
    model = model_source(
        context.spec.model,
        image=context.image,
        pull_policy=context.spec.image.pull_policy,
        words_only=True,
    )
    pod = Pod(
        role="router",
        settings=settings,
        command=command_line(router_flags(context, model)),
        port=ROUTER_PORT,
        model=model,
        probes=_probes(),
        grace_seconds=SETTLE_S + settings.finish_seconds + _STOP_S,
        secret_sources=_api_keys(context),
    )
    return deployment(context, "router", settings.replicas, pod_template(context, pod))


def router_flags(context: Context, model: ModelSource) -> dict[str, Any]:
    """Of `kvloop router`."""
    spec = context.spec
    return {
        "host": "0.0.0.0",
        "port": ROUTER_PORT,
        # The demo's tokenizer is where its nodes say.
        "model": None if spec.model.demo is not None else model.flag,
        "max-queued": spec.router.max_queued,
        "finish-timeout-s": spec.router.finish_seconds,
        "settle-s": SETTLE_S,
        "zone": spec.zone,
        "node-secret-file": SECRET_FILE,
        "api-keys": f"{SECRETS_DIR}/{API_KEYS}" if spec.router.api_keys_secret else None,
        "hicache-storage-attach-file": ATTACH_FILE,
        "canary-interval-s": spec.canary.interval_seconds if spec.canary.enabled else 0,
        "canary-timeout-s": spec.canary.timeout_seconds,
    }


def _api_keys(context: Context) -> list[dict[str, Any]]:
    keys = context.spec.router.api_keys_secret
    if keys is None:
        return []
    return [{"secret": {"name": keys.name, "items": [{"key": keys.key, "path": API_KEYS}]}}]


def _probes() -> dict[str, Any]:
    """It is ready when it knows a ready decode node, which may take as long as a model."""
    return {
        "startupProbe": http_probe("/healthz", 2, 90),
        "readinessProbe": http_probe("/readyz", 2, 3),
        "livenessProbe": http_probe("/healthz", 10, 6),
    }
