"""SGLang's own code from its wheel, on a machine that could not run it."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import types
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kvloop.shared_cache.keys import page_keys

VERSION = "0.5.23"
_RUNTIME = (
    "sglang.srt.managers.cache_controller",
    "sglang.srt.mem_cache.hybrid_cache.hybrid_cache_controller",
    "sglang.srt.mem_cache.pool_host.mamba",
    "sglang.srt.mem_cache.pool_host.mha",
    "sglang.srt.mem_cache.pool_host.mla",
    "sglang.srt.mem_cache.deepseek_v4_memory_pool",
    "sglang.srt.mem_cache.memory_pool_host",
    "sglang.srt.observability.metrics_collector",
    "sglang.srt.server_args",
)


@cache
def sglang_folder() -> Path | None:
    """Where the wheel's package lies; None where this version is not installed."""
    try:
        wheel = importlib.metadata.distribution("sglang")
    except importlib.metadata.PackageNotFoundError:
        return None
    return Path(str(wheel.locate_file("sglang"))) if wheel.version == VERSION else None


needs_sglang = pytest.mark.skipif(
    sglang_folder() is None, reason=f"pip install --no-deps sglang=={VERSION}"
)


@cache
def sglang_module(name: str) -> Any:
    """A module of SGLang's that needs torch alone: a bare `sglang` stands in for the package."""
    folder = sglang_folder()
    assert folder is not None
    if "sglang" not in sys.modules:
        package = types.ModuleType("sglang")
        package.__path__ = [str(folder)]
        sys.modules["sglang"] = package
    return importlib.import_module(name)


@cache
def sglang_runtime(name: str) -> Any:
    """A module of SGLang's pools, controllers or flags; see sglang_standins."""
    from sglang_standins import stand_ins

    folder = sglang_folder()
    assert folder is not None
    sglang_module("sglang.srt.environ")
    with stand_ins(folder):
        for module in _RUNTIME:
            importlib.import_module(module)
        found = importlib.import_module(name)
    _need_no_compiler()
    return found


def _need_no_compiler() -> None:
    """SGLang compiles its hash of pages when it is first used: this project's has the same keys."""

    def get_hash(
        tokens: array[int], num: int, _width: int, _bigram: bool, prior: bytes | None, page: int
    ) -> list[str]:
        keys = page_keys(list(tokens[:num]), page, prior or b"")
        return [key.hex() for key in keys]

    module = importlib.import_module("sglang.srt.mem_cache.cpp_utils.native_hash")
    module._load_native_hash_module = lambda: types.SimpleNamespace(get_hash=get_hash)


@contextmanager
def one_rank() -> Iterator[None]:
    """SGLang's controllers see a deployment of one process."""
    parallel = sglang_runtime("sglang.srt.runtime_context").get_parallel()
    with parallel.override(
        tp_rank=0, tp_size=1, pp_rank=0, pp_size=1, attn_dcp_size=1, attn_dcp_rank=0
    ):
        yield


def storage_config(extra_config: dict[str, Any], **changes: Any) -> Any:
    """SGLang's HiCacheStorageConfig of one rank."""
    fields: dict[str, Any] = {
        "tp_rank": 0,
        "tp_size": 1,
        "pp_rank": 0,
        "pp_size": 1,
        "attn_cp_rank": 0,
        "attn_cp_size": 1,
        "is_mla_model": False,
        "enable_storage_metrics": False,
        "is_page_first_layout": True,
        "model_name": "org/model",
        "extra_config": extra_config,
    }
    module = sglang_module("sglang.srt.mem_cache.hicache_storage")
    return module.HiCacheStorageConfig(**fields | changes)


def extra_config(backend: str, config: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What stands in --hicache-storage-backend-extra-config."""
    return {
        "backend_name": "kvloop",
        "module_path": "kvloop.shared_cache.sglang",
        "class_name": "KVLoopStorage",
        "interface_v1": 1,
        "backend": backend,
        "config": config,
        **more,
    }


def create_storage(config: Any, pool: Any) -> Any:
    """As SGLang's controller does it: its factory makes the backend, which gets the pool."""
    factory = sglang_module("sglang.srt.mem_cache.storage.backend_factory")
    storage = factory.StorageBackendFactory.create_backend("dynamic", config, pool)
    storage.register_mem_pool_host(pool)
    storage.on_host_pools_registered()
    return storage
