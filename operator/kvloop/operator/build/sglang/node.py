"""Prefill's and decode's Deployment of engine sglang."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kvloop.operator.build.pd_cluster.context import Context
from kvloop.operator.build.pd_cluster.deployment import deployment
from kvloop.operator.build.pd_cluster.flags import command_line
from kvloop.operator.build.pd_cluster.model import model_source
from kvloop.operator.build.pd_cluster.pod import http_probe
from kvloop.operator.build.sglang.flags import BOOTSTRAP_ANNOTATION, node_flags, settings_of
from kvloop.operator.build.sglang.pod import SGLangPod, pod_template
from kvloop.operator.build.sglang.storage import FILES_DIR
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.names import NODE_PORT, PAIRED_GATE, REVISION

SETTLE_S = 30
"""A new node counts so long after it is ready: routers of its generation find it meanwhile."""
_STOP_S = 25
_SHARED_MEMORY = "/dev/shm"


def build_node(context: Context, role: str) -> Manifest:
    """The Deployment NAME-prefill or NAME-decode."""
    spec = context.spec
    settings = spec.prefill if role == "prefill" else spec.decode
    model = model_source(
        spec.model,
        image=context.settings.node_image,  # it has what downloads
        pull_policy=spec.image.pull_policy,
        words_only=False,
    )
    bootstrap = settings_of(context).bootstrap_port
    storage = context.storage
    volumes, mounts = _extra_volumes(context)
    made = SGLangPod(
        role=role,
        settings=settings,
        module="sglang.launch_server",
        args=command_line(node_flags(context, role, model.flag)),
        ports={"http": NODE_PORT} | ({"bootstrap": bootstrap} if role == "prefill" else {}),
        probes=_probes(),
        grace_seconds=settings.finish_seconds + settings.drain_seconds + _STOP_S,
        account=context.name,
        has_caches=True,
        model=model,
        env=[*_transfer_env(context), *(storage.env if storage is not None else ())],
        labels={REVISION: context.generation},
        annotations={BOOTSTRAP_ANNOTATION: str(bootstrap)} if role == "prefill" else {},
        gates=[PAIRED_GATE],
        volumes=volumes,
        mounts=mounts,
    )
    manifest = deployment(context, role, settings.replicas, pod_template(context, made))
    manifest["spec"]["minReadySeconds"] = SETTLE_S
    return manifest


def files_name(cluster: str) -> str:
    """The ConfigMap of what SGLang reads from files."""
    return f"{cluster}-sglang"


def _transfer_env(context: Context) -> Iterator[dict[str, Any]]:
    """MOONCAKE_PROTOCOL is of the transfer between nodes; a store's own is in its extra config."""
    protocol = context.spec.transfer_protocol
    yield {"name": "MOONCAKE_PROTOCOL", "value": protocol}
    yield {"name": "MOONCAKE_LOCAL_HOSTNAME", "value": "$(POD_IP)"}
    yield {"name": "SGLANG_HOST_IP", "value": "$(POD_IP)"}
    if protocol == "tcp" and settings_of(context).transfer_backend == "nixl":
        yield {"name": "UCX_TLS", "value": "tcp,self,sm,cuda_copy,cuda_ipc"}


def _extra_volumes(
    context: Context,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Files that SGLang reads, and shared memory that ranks meet in."""
    storage = context.storage
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []
    if storage is not None and storage.files:
        source = {"configMap": {"name": files_name(context.name)}}
        volumes.append({"name": "sglang-files", **source})
        mounts.append({"name": "sglang-files", "mountPath": FILES_DIR, "readOnly": True})
    if all(mount["mountPath"] != _SHARED_MEMORY for mount in context.caches.mounts):
        volumes.append({"name": "shared-memory", "emptyDir": {"medium": "Memory"}})
        mounts.append({"name": "shared-memory", "mountPath": _SHARED_MEMORY})
    return volumes, mounts


def _probes() -> dict[str, Any]:
    """/health is 503 until the model is there, which may take half an hour."""
    return {
        "startupProbe": http_probe("/health", 5, 360),
        "readinessProbe": http_probe("/health", 5, 3),
        "livenessProbe": http_probe("/health", 10, 12),
    }
