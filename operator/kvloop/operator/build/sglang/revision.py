"""What tells generations of SGLang's nodes apart."""

from __future__ import annotations

from typing import Any

from kvloop.operator.build.sglang.storage import Storage
from kvloop.operator.revision import digest
from kvloop.operator.types.pd_cluster import PDClusterSpec


def sglang_generation(spec: PDClusterSpec, generation: str, storage: Storage | None) -> str:
    """Adds what SGLang takes by flags when it starts: the cache that is attached, and all that
    both ends of a transfer agree on. `generation`: as of engine kvloop."""
    told: dict[str, Any] = {
        "generation": generation,
        "sglang": spec.sglang.model_dump(mode="json") if spec.sglang is not None else {},
        "hicache": spec.hicache.model_dump(mode="json"),
        "offload": spec.offload.enabled,
        "tensor_parallel_size": [
            spec.prefill.tensor_parallel_size,
            spec.decode.tensor_parallel_size,
        ],
        "storage": None if storage is None else _told(storage),
    }
    return digest(told)


def _told(storage: Storage) -> list[Any]:
    return [storage.backend, dict(storage.extra_config), list(storage.env), dict(storage.files)]
