"""SGLang's own storage classes, from its wheel, importable without the rest of SGLang.

Its code is real; a bare `sglang` package stands in so that only what a class needs is imported,
and so do, for MooncakeStore, modules of which it uses types only. ImportError: no such wheel.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

_TYPES = {
    "sglang.srt.mem_cache.pool_host": ("HostKVCache", "HostTensorAllocator"),
    "sglang.srt.mem_cache.pool_host.mla": ("MLATokenToKVPoolHost",),
    "sglang.srt.mem_cache.hybrid_cache.linker_pool_assembler": ("DevicePoolEntry",),
    "sglang.srt.observability.metrics_collector": ("StorageMetrics",),
}


def _stand_in(name: str, names: tuple[str, ...] = ()) -> ModuleType:
    module = ModuleType(name)
    for each in names:
        setattr(module, each, type(each, (), {}))
    return sys.modules.setdefault(name, module)


def _bare_sglang() -> None:
    if "sglang" in sys.modules:
        return
    spec = importlib.util.find_spec("sglang")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("sglang is not installed: pip install --no-deps sglang==0.5.23")
    _stand_in("sglang").__path__ = list(spec.submodule_search_locations)


_bare_sglang()

from sglang.srt.mem_cache.hicache_storage import (  # noqa: E402
    HiCacheFile,
    HiCacheStorage,
)

for _name, _names in _TYPES.items():
    _stand_in(_name, _names)

from sglang.srt.mem_cache.storage.mooncake_store.mooncake_store import (  # noqa: E402
    MooncakeStore,
)

__all__ = ["HiCacheFile", "HiCacheStorage", "OwnMooncakeStore", "WithoutV1"]


class OwnMooncakeStore(MooncakeStore):  # type: ignore[misc]
    """As SGLang makes it of its own backend mooncake: `dynamic` gives {} for the pool."""

    def __init__(self, storage_config: Any, kwargs: dict[str, Any]) -> None:
        super().__init__(storage_config, kwargs or None)


class WithoutV1(HiCacheFile):  # type: ignore[misc]
    """Has the batch v1 methods as stubs of its base."""
