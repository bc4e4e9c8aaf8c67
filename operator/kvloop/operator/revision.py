"""What tells generations of nodes and of their pages apart."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from kvloop.operator.connect.merged import Merged
from kvloop.operator.types.pd_cluster import NodeRole, PDClusterSpec, SGLang

_CHARS = 16


def release_tag(spec: PDClusterSpec) -> str:
    """Of the cache's namespace: pages of unequal tags never meet.

    Nodes digest what they compute with, the pages' format among it; this adds what they cannot
    know: where the model comes from, the engine, and the user's own tag. An image of SGLang is in
    it, as its pages name no format; one of ours is not: an upgrade keeps the cache warm.
    """
    told = {
        "engine": spec.engine,
        "image": (spec.sglang or SGLang()).image if spec.engine == "sglang" else None,
        "model": _dumped(spec.model),
        "page_size": spec.hicache.page_size,
        "codec": spec.hicache.codec,
        "release_tag": spec.release_tag,
    }
    return digest(told)


def generation(spec: PDClusterSpec, image: str, caches: Merged, keys: str) -> str:
    """Of nodes: only equal ones are paired. What one role may have for itself, such as sizes and
    places, is not in it, nor are replicas, the cache that is attached, and the router."""
    told = {
        "release_tag": release_tag(spec),
        "image": image,
        "keys": keys,
        "transfer_protocol": spec.transfer_protocol,
        "mem_layout": spec.hicache.mem_layout,
        "tail_objects": spec.offload.tail_objects,
        "volumes": list(caches.volumes),
        "mounts": list(caches.mounts),
        "cache_env": list(caches.env),
        "cache_flags": list(caches.flags),
        "pods": _dumped(spec.pod_template),
        "roles": [_of_role(role) for role in (spec.prefill, spec.decode)],
    }
    return digest(told)


def digest(told: Any) -> str:
    """Of anything that JSON can hold; fit for a label."""
    text = json.dumps(told, sort_keys=True, separators=(",", ":"), default=dict)
    return hashlib.sha256(text.encode()).hexdigest()[:_CHARS]


def _of_role(role: NodeRole) -> dict[str, Any]:
    return {"env": role.env, "args": role.extra_args, "pods": _dumped(role.pod_template)}


def _dumped(model: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = model.model_dump(mode="json", by_alias=True)
    return dumped
