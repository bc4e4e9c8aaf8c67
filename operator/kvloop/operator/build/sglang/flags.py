"""Flags of SGLang's servers and of its router."""

from __future__ import annotations

import math
from typing import Any

from kvloop.operator.build.pd_cluster.context import Context
from kvloop.operator.build.pd_cluster.model import served_name
from kvloop.operator.names import COMPONENT, INSTANCE, NODE_PORT, REVISION, ROUTER_PORT, selector
from kvloop.operator.types.pd_cluster import NodeRole, SGLang

METRICS_PORT = 29000
"""Of the router."""
BOOTSTRAP_ANNOTATION = "sglang.ai/bootstrap-port"
"""By which the router finds prefill's bootstrap server; the router's own name for it."""


def settings_of(context: Context) -> SGLang:
    """Its defaults where the resource says nothing."""
    return context.spec.sglang or SGLang()


def node_flags(context: Context, role: str, model: str) -> dict[str, Any]:
    """Of `sglang.launch_server`; `model`: where it lies."""
    spec = context.spec
    settings = spec.prefill if role == "prefill" else spec.decode
    return {
        "model-path": model,
        "served-model-name": served_name(spec.model),
        "host": "0.0.0.0",
        "port": NODE_PORT,
        "dtype": spec.model.dtype,
        "context-length": spec.model.context_length,
        "page-size": spec.hicache.page_size,
        "enable-metrics": True,
        "enable-cache-report": True,
        # The kubelet puts the variable's value in its place.
        "admin-api-key": "$(KVLOOP_ADMIN_API_KEY)",
        **_sizes(context, settings),
        **_disaggregation(context, role, settings),
        **(_prefill(context) if role == "prefill" else _decode(context)),
    }


def _sizes(context: Context, settings: NodeRole) -> dict[str, Any]:
    return {
        "tp-size": settings.tensor_parallel_size,
        "mem-fraction-static": settings_of(context).mem_fraction_static,
        "max-total-tokens": settings.max_total_tokens,
        "max-running-requests": settings.max_running_requests,
        "chunked-prefill-size": settings.chunked_prefill_size,
        "radix-eviction-policy": context.spec.hicache.eviction_policy,
    }


def _disaggregation(context: Context, role: str, settings: NodeRole) -> dict[str, Any]:
    sglang = settings_of(context)
    devices = settings.rdma.devices if settings.rdma is not None else []
    return {
        "disaggregation-mode": role,
        "disaggregation-transfer-backend": _transfer_backend(context),
        "disaggregation-bootstrap-port": sglang.bootstrap_port,
        "disaggregation-ib-device": ",".join(devices) or None,
    }


def _transfer_backend(context: Context) -> str:
    """mooncake_tcp keeps Mooncake from taking the first RDMA device that it finds."""
    backend = settings_of(context).transfer_backend
    is_tcp = context.spec.transfer_protocol == "tcp"
    return "mooncake_tcp" if backend == "mooncake" and is_tcp else backend


def _prefill(context: Context) -> dict[str, Any]:
    hicache = context.spec.hicache
    return {
        "enable-hierarchical-cache": True,
        "hicache-ratio": None if hicache.size_gb is not None else hicache.ratio,
        "hicache-size": _whole_gb(hicache.size_gb),
        "hicache-write-policy": hicache.write_policy,
        "hicache-storage-prefetch-policy": hicache.prefetch_policy,
        **_tiers(context),
    }


def _decode(context: Context) -> dict[str, Any]:
    """Without a storage there is nothing that decode could offload to."""
    offload = context.spec.offload
    if context.storage is None or not offload.enabled:
        return {}
    return {
        "disaggregation-decode-enable-offload-kvcache": True,
        "hicache-size": _whole_gb(offload.size_gb),
        **_tiers(context),
    }


def _tiers(context: Context) -> dict[str, Any]:
    hicache = context.spec.hicache
    flags: dict[str, Any] = {
        "hicache-io-backend": hicache.io_backend,
        "hicache-mem-layout": hicache.mem_layout,
    }
    if (storage := context.storage) is not None:
        flags["hicache-storage-backend"] = storage.backend
        flags["hicache-storage-backend-extra-config"] = storage.extra_config or None
    return flags


def _whole_gb(size_gb: float | None) -> int | None:
    """SGLang takes whole ones."""
    return None if size_gb is None else math.ceil(size_gb)


def router_words(context: Context) -> list[str]:
    """Of `sglang_router.launch_router`: it watches the pods of its own generation, so that nodes
    of two never meet."""
    router = context.spec.router
    return [
        "--pd-disaggregation",
        *("--host", "0.0.0.0", "--port", str(ROUTER_PORT)),
        *("--policy", "cache_aware"),
        "--service-discovery",
        *("--service-discovery-namespace", context.cluster.metadata.namespace),
        *("--service-discovery-port", str(NODE_PORT)),
        *("--prefill-selector", *_selected(context, "prefill")),
        *("--decode-selector", *_selected(context, "decode")),
        *("--max-concurrent-requests", str(router.max_queued)),
        *("--prometheus-port", str(METRICS_PORT)),
        *("--health-check-interval-secs", "10"),
        *("--shutdown-grace-period-secs", str(max(1, router.finish_seconds))),
    ]


def _selected(context: Context, role: str) -> list[str]:
    wanted = selector(context.labels(role)) | {REVISION: context.generation}
    return [f"{name}={wanted[name]}" for name in (INSTANCE, COMPONENT, REVISION)]
