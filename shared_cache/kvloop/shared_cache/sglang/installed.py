"""What the installed SGLang and torch give the plug-in; they are imported when it is needed."""

from __future__ import annotations

import importlib
from typing import Any

from kvloop.shared_cache.errors import ConfigError

_STORAGE_MODULE = "sglang.srt.mem_cache.hicache_storage"
_METRICS_MODULE = "sglang.srt.observability.metrics_collector"


def storage_base() -> type[Any]:
    """SGLang's HiCacheStorage; ImportError where SGLang is not installed."""
    try:
        base: type[Any] = importlib.import_module(_STORAGE_MODULE).HiCacheStorage
    except ImportError as error:
        raise ImportError(
            f"kvloop.shared_cache.sglang is a plug-in of SGLang, whose {_STORAGE_MODULE} cannot be "
            f"imported: {error}; install sglang into the same environment as kvloop"
        ) from error
    return base


def first_page(tokens_per_page: int) -> Any:
    """The host indices of a pool's first page, as SGLang passes them: an int64 tensor."""
    return _torch().arange(tokens_per_page, dtype=_torch().int64)


def byte_tensor(num_bytes: int) -> Any:
    """A new uint8 tensor of this many bytes in host memory."""
    return _torch().empty(num_bytes, dtype=_torch().uint8)


def pool_transfer_result(final: int, hits: dict[Any, int], restorable: list[int]) -> Any:
    """SGLang's PoolTransferResult."""
    return importlib.import_module(_STORAGE_MODULE).PoolTransferResult(final, hits, restorable)


def storage_metrics() -> Any:
    """SGLang's StorageMetrics, empty."""
    return importlib.import_module(_METRICS_MODULE).StorageMetrics()


def configured_kv_dtype() -> str | None:
    """`--kv-cache-dtype` of the running SGLang; None where it is auto or cannot be told."""
    try:
        context = importlib.import_module("sglang.srt.runtime_context")
        name = str(context.get_model().kv_cache_dtype)
    except Exception:  # private to SGLang: whatever it raises, the configuration must say it
        return None
    return None if name == "auto" else name


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ConfigError(f"the SGLang plug-in needs torch, as SGLang does: {error}") from error
