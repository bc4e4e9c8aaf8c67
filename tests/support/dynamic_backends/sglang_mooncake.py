"""SGLang's MooncakeStore, from its wheel (see sglang_wheel), for `dynamic` to load."""

from __future__ import annotations

from typing import Any

from sglang_wheel import sglang_runtime

_module = sglang_runtime("sglang.srt.mem_cache.storage.mooncake_store.mooncake_store")


class MooncakeStore(_module.MooncakeStore):  # type: ignore[misc, name-defined]
    """Made as SGLang makes its backend mooncake, without a pool; `dynamic` gives {} for it."""

    def __init__(self, storage_config: Any, kwargs: dict[str, Any]) -> None:
        super().__init__(storage_config, kwargs or None)
