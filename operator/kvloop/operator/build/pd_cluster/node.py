"""Prefill's and decode's Deployment."""

from __future__ import annotations

from typing import Any, Literal

from kvloop.operator.build.pd_cluster.context import Context
from kvloop.operator.build.pd_cluster.deployment import deployment
from kvloop.operator.build.pd_cluster.flags import command_line
from kvloop.operator.build.pd_cluster.model import ModelSource, model_source, served_name
from kvloop.operator.build.pd_cluster.pod import (
    ATTACH_FILE,
    SECRET_FILE,
    Pod,
    http_probe,
    pod_template,
)
from kvloop.operator.controllers.base import Manifest
from kvloop.operator.names import NODE_PORT, PAIRED_GATE, REVISION
from kvloop.operator.types.pd_cluster import NodeRole

NodeRoleName = Literal["prefill", "decode"]
_STOP_S = 25
"""For a process to end in, beside what it finishes and stores."""


def build_node(context: Context, role: NodeRoleName) -> Manifest:
    """The Deployment NAME-prefill or NAME-decode."""
    settings = context.spec.prefill if role == "prefill" else context.spec.decode
    model = model_source(
        context.spec.model,
        image=context.image,
        pull_policy=context.spec.image.pull_policy,
        words_only=False,
    )
    pod = Pod(
        role=role,
        settings=settings,
        command=command_line(node_flags(context, role, model)),
        port=NODE_PORT,
        model=model,
        probes=_probes(),
        grace_seconds=settings.finish_seconds + settings.drain_seconds + _STOP_S,
        labels={REVISION: context.generation},
        gates=[PAIRED_GATE],
    )
    return deployment(context, role, settings.replicas, pod_template(context, pod))


def node_flags(context: Context, role: NodeRoleName, model: ModelSource) -> dict[str, Any]:
    """Of `kvloop prefill` and `kvloop decode`."""
    spec = context.spec
    settings = spec.prefill if role == "prefill" else spec.decode
    return {
        "model": model.flag,
        "served-model-name": served_name(spec.model),
        "dtype": spec.model.dtype,
        "device": "cuda" if settings.gpus else None,
        "context-length": spec.model.context_length,
        "host": "$(POD_IP)",
        "port": NODE_PORT,
        "page-size": spec.hicache.page_size,
        **_sizes(settings),
        **_cache_flags(context),
        **(_prefill_flags(context) if role == "prefill" else _decode_flags(context)),
        **_cluster_flags(context, settings),
    }


def _sizes(settings: NodeRole) -> dict[str, Any]:
    return {
        "max-total-tokens": settings.max_total_tokens,
        "max-running-requests": settings.max_running_requests,
        "chunked-prefill-size": settings.chunked_prefill_size,
        "threads": settings.threads,
    }


def _cache_flags(context: Context) -> dict[str, Any]:
    """Of both roles. Without offload decode attaches nothing: it would have no use for it."""
    hicache = context.spec.hicache
    return {
        "hicache-codec": hicache.codec,
        "hicache-mem-layout": hicache.mem_layout,
        "hicache-io-backend": hicache.io_backend,
        "radix-eviction-policy": hicache.eviction_policy,
        "tail-objects": context.spec.offload.tail_objects,
        "release-tag": context.release_tag,
    }


def _prefill_flags(context: Context) -> dict[str, Any]:
    hicache = context.spec.hicache
    return {
        "hicache-ratio": None if hicache.size_gb is not None else hicache.ratio,
        "hicache-size": hicache.size_gb,
        "hicache-write-policy": hicache.write_policy,
        "hicache-storage-prefetch-policy": hicache.prefetch_policy,
        "hicache-tenant-quotas": hicache.tenant_quotas or None,
        "hicache-storage-attach-file": ATTACH_FILE,
    }


def _decode_flags(context: Context) -> dict[str, Any]:
    offload = context.spec.offload
    return {
        "hicache-size": offload.size_gb,
        "offload-policy": offload.policy,
        "offload-back-pressure": offload.back_pressure,
        "offload-deadline-s": offload.deadline_seconds,
        "hicache-storage-attach-file": ATTACH_FILE if offload.enabled else None,
    }


def _cluster_flags(context: Context, settings: NodeRole) -> dict[str, Any]:
    devices = settings.rdma.devices if settings.rdma is not None else []
    return {
        "router": context.router_url,
        "transfer-host": "$(POD_IP)",
        "transfer-protocol": context.spec.transfer_protocol,
        "transfer-device": ",".join(devices) or None,
        "generation": context.generation,
        "zone": context.spec.zone,
        "node-secret-file": SECRET_FILE,
        "finish-timeout-s": settings.finish_seconds,
        # 0 is no deadline that the command takes: at once, nearly.
        "drain-timeout-s": settings.drain_seconds or 0.1,
    }


def _probes() -> dict[str, Any]:
    """A model may take half an hour to load."""
    return {
        "startupProbe": http_probe("/readyz", 2, 900),
        "readinessProbe": http_probe("/readyz", 2, 3),
        "livenessProbe": http_probe("/healthz", 10, 6),
    }
