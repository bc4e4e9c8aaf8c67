"""Relations between fields of a PDCluster."""

from __future__ import annotations

from typing import Any

from kvloop.operator.quantity import num_bytes
from kvloop.operator.types.base import Rule

OWN_FLAGS = (
    *("model", "model-path", "served-model-name", "dtype", "context-length", "host", "port"),
    *("page-size", "hicache-codec", "kv-cache-dtype", "release-tag", "generation", "zone"),
    *("tail-objects", "no-tail-objects", "hicache-storage-backend", "admin-api-key"),
    *("hicache-storage-backend-extra-config", "hicache-storage-attach-file", "advertise-url"),
    *("router", "prefill", "decode", "node-secret-file", "transfer-host", "transfer-protocol"),
    *("tp", "tp-size", "tensor-parallel-size", "disaggregation-mode"),
)
"""Flags that fields stand for or that the operator sets: of equal value on all nodes, or the
loop is broken."""
_IN_CEL = ", ".join(f"'--{flag}'" for flag in OWN_FLAGS)


def _sets_own_flag(word: str) -> bool:
    return word.startswith("--") and word[2:].partition("=")[0] in OWN_FLAGS


def _memory_holds(role: Any, size_gb: float | None) -> bool:
    limit = role.resources.limits.get("memory")
    return limit is None or size_gb is None or num_bytes(limit) > size_gb * 1e9


def _fits_tokens(role: str, alias: str) -> Rule:
    return Rule(
        cel=f"!has(self.{alias}.maxTotalTokens) || "
        f"self.{alias}.maxTotalTokens >= 2 * self.hicache.pageSize",
        check=lambda s: (
            getattr(s, role).max_total_tokens is None
            or getattr(s, role).max_total_tokens >= 2 * s.hicache.page_size
        ),
        message="maxTotalTokens must hold two pages of hicache.pageSize tokens at least",
        field=f"{alias}.maxTotalTokens",
    )


OWN_FLAGS_RULE = Rule(
    cel=f"self.extraArgs.all(a, ![{_IN_CEL}].exists(f, a == f || a.startsWith(f + '=')))",
    check=lambda role: not any(_sets_own_flag(word) for word in role.extra_args),
    message="extraArgs must not set what fields of the resource or the operator set, such as "
    "--model, --page-size, --release-tag or --hicache-storage-backend: nodes would disagree; "
    "use the fields",
    field="extraArgs",
)
NODE_RULES = (
    Rule(
        cel="self.tensorParallelSize == 1 || self.tensorParallelSize <= self.gpus || "
        "self.gpuResource in self.resources.limits",
        check=lambda r: (
            r.tensor_parallel_size == 1
            or r.tensor_parallel_size <= r.gpus
            or r.gpu_resource in r.resources.limits
        ),
        message="tensorParallelSize needs a GPU for each part: set gpus to as many",
        field="gpus",
    ),
)
SPEC_RULES = (
    Rule(
        cel="!has(self.sharedCacheRef) || size(self.attachableCaches) == 0 || "
        "self.attachableCaches.exists(c, c.name == self.sharedCacheRef.name)",
        check=lambda s: (
            s.shared_cache_ref is None
            or not s.attachable_caches
            or s.shared_cache_ref.name in [c.name for c in s.attachable_caches]
        ),
        message="sharedCacheRef must be one of attachableCaches, whose volumes the pods mount; "
        "add it there (pods are replaced once), or leave attachableCaches empty",
        field="sharedCacheRef.name",
    ),
    Rule(
        cel="self.attachableCaches.all(c, self.attachableCaches.exists_one(d, d.name == c.name))",
        check=lambda s: len({c.name for c in s.attachable_caches}) == len(s.attachable_caches),
        message="name each of attachableCaches once",
        field="attachableCaches",
    ),
    Rule(
        cel="self.engine == 'kvloop' || !has(self.model.demo)",
        check=lambda s: s.engine == "kvloop" or s.model.demo is None,
        message="the demo model runs on engine kvloop only; set huggingFace, claim or image",
        field="model.demo",
    ),
    Rule(
        cel="self.engine == 'sglang' || !has(self.sglang)",
        check=lambda s: s.engine == "sglang" or s.sglang is None,
        message="sglang belongs to engine sglang: set engine to sglang, or remove it",
        field="sglang",
    ),
    Rule(
        cel="self.engine == 'sglang' || (self.prefill.tensorParallelSize == 1 && "
        "self.decode.tensorParallelSize == 1)",
        check=lambda s: (
            s.engine == "sglang"
            or (s.prefill.tensor_parallel_size == 1 and s.decode.tensor_parallel_size == 1)
        ),
        message="tensorParallelSize above 1 needs engine sglang",
        field="prefill.tensorParallelSize",
    ),
    Rule(
        cel="self.transferProtocol == 'tcp' || (has(self.prefill.rdma) && has(self.decode.rdma))",
        check=lambda s: (
            s.transfer_protocol == "tcp"
            or (s.prefill.rdma is not None and s.decode.rdma is not None)
        ),
        message="rdma needs devices on both ends: set prefill.rdma and decode.rdma, "
        "or transferProtocol to tcp",
        field="transferProtocol",
    ),
    _fits_tokens("prefill", "prefill"),
    _fits_tokens("decode", "decode"),
    Rule(
        cel=None,
        check=lambda s: _memory_holds(s.prefill, s.hicache.size_gb),
        message="hicache.sizeGb does not fit into prefill.resources.limits.memory: "
        "raise the limit, or take fewer GB",
        field="hicache.sizeGb",
    ),
    Rule(
        cel=None,
        check=lambda s: not s.offload.enabled or _memory_holds(s.decode, s.offload.size_gb),
        message="offload.sizeGb does not fit into decode.resources.limits.memory: "
        "raise the limit, or take fewer GB",
        field="offload.sizeGb",
    ),
)
