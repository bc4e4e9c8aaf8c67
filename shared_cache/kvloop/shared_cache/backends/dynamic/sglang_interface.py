"""What a storage class with SGLang's interface must have, and what its constructor is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

_BASE = ("sglang.srt.mem_cache.hicache_storage", "HiCacheStorage")
_METHODS = {
    0: ("exists", "get", "set"),
    1: ("batch_exists", "batch_get_v1", "batch_set_v1", "register_mem_pool_host"),
}
_STUBS = ("batch_get_v1", "batch_set_v1")
"""What the base class has only so that it can be called, and that does nothing."""


def missing_methods(found: type[Any], interface_v1: Literal[0, 1]) -> list[str]:
    """Methods of this interface that the class does not have, or has from the base as a stub."""
    return [
        name
        for name in _METHODS[interface_v1]
        if not callable(getattr(found, name, None)) or (name in _STUBS and _is_stub(found, name))
    ]


def _is_stub(found: type[Any], name: str) -> bool:
    owner = next(base for base in found.__mro__ if name in vars(base))
    return (owner.__module__, owner.__name__) == _BASE


@dataclass(slots=True, kw_only=True)
class StorageConfig:
    """Stands in for SGLang's HiCacheStorageConfig: its fields, as of 0.5.23.

    One writer on one rank, whatever the node's own shards are: an object is one head group of a
    page, and its name says which. Like a page of an MLA model it is a single buffer.
    """

    extra_config: Mapping[str, Any]
    """The whole extra config, as SGLang gives it: module_path and class_name too."""
    model_name: str
    tp_rank: int = 0
    tp_size: int = 1
    pp_rank: int = 0
    pp_size: int = 1
    attn_cp_rank: int = 0
    attn_cp_size: int = 1
    is_mla_model: bool = True
    enable_storage_metrics: bool = False
    is_page_first_layout: bool = True
    tp_lcm_size: int | None = None
    should_split_heads: bool = False
    dp_rank: int = 0
    dcp_size: int = 1
    dcp_rank: int = 0
    logical_page_size: int | None = None

    @property
    def is_storage_writer(self) -> bool:
        """True: no other rank writes these objects."""
        return True
