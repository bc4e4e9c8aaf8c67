"""Which pages of SGLang's are interchangeable: the namespace that a rank of it stores in."""

from __future__ import annotations

from typing import Any, NamedTuple

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.namespace import NamespaceSpec
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.sglang.host_pages import HostPages

KV = "kv"
_SHARDED_ALWAYS = "mamba"
_GEOMETRY = (
    "layer_num",
    "start_layer",
    "end_layer",
    "head_num",
    "head_dim",
    "v_head_dim",
    "kv_lora_rank",
    "qk_rope_head_dim",
    "kv_cache_dim",
)


class Component(NamedTuple):
    """One of SGLang's host pools: the KV, or a side pool of a hybrid model."""

    name: str
    pool: Any
    pages: HostPages


def is_replicated(storage_config: Any, component: Component) -> bool:
    """Whether all TP ranks hold the same bytes, so that one of them writes for all.

    With MLA they do, but for recurrent states, and for draft models that have heads to split.
    """
    has_heads = hasattr(component.pool, "head_num")
    return bool(storage_config.is_mla_model) and component.name != _SHARDED_ALWAYS and not has_heads


def namespace_of(
    storage_config: Any, component: Component, kv_dtype: str, release_tag: str
) -> bytes:
    """32 bytes; ConfigError where nothing tells this model's pages from another's."""
    if not storage_config.model_name and not release_tag:
        raise ConfigError(
            "SGLang gave no model name, so that pages of different models could not be told apart:"
            " start it with --served-model-name, or set release_tag in the extra config"
        )
    return NamespaceSpec(
        model_config={
            "engine": "sglang",
            "model_name": storage_config.model_name or "",
            "component": component.name,
            "pool": type(component.pool).__name__,
            "dtype": component.pages.dtype,
            "byte_order": component.pages.byte_order,
            "page_bytes": component.pages.page_bytes,
            "geometry": _geometry(component.pool),
            "is_mla": bool(storage_config.is_mla_model),
            "shard": _shard(storage_config, component),
        },
        weights_fingerprint="",  # SGLang's storage does not learn of the weights
        kv_dtype=kv_dtype,
        page_size=component.pages.tokens_per_page,
        release_tag=release_tag,
    ).digest()


def flat_shape(page_bytes: int, tokens: int) -> PageShape:
    """A page of this many bytes as one object, whatever lies in it; an odd one gets a byte more."""
    if page_bytes and page_bytes % (2 * tokens) == 0:
        page_size, head_size = tokens, page_bytes // (2 * tokens)
    else:
        page_size, head_size = 1, max(1, -(-page_bytes // 2))
    return PageShape(
        num_layers=1, page_size=page_size, num_kv_heads=1, head_size=head_size, itemsize=1
    )


def _geometry(pool: Any) -> dict[str, int]:
    found = {name: getattr(pool, name, None) for name in _GEOMETRY}
    return {name: value for name, value in found.items() if isinstance(value, int)}


def _shard(storage_config: Any, component: Component) -> dict[str, int]:
    """Which part of the model's KV this rank holds; data-parallel ranks hold equal parts."""
    names = ["pp_rank", "pp_size", "attn_cp_rank", "attn_cp_size", "dcp_rank", "dcp_size"]
    if not is_replicated(storage_config, component):
        names += ["tp_rank", "tp_size"]
    # The later fields came to SGLang one by one; where they are missing there is one rank.
    return {name: int(getattr(storage_config, name, name.endswith("size"))) for name in names}
