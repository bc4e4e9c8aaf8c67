"""Which KV formats of SGLang's pools and side pools may share pages; odd transfers, tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sglang_pools import fill, mha_pool, page_bytes
from sglang_wheel import (
    needs_sglang,
    sglang_module,
    sglang_runtime,
)

from kvloop.shared_cache.errors import ConfigError

pytestmark = [pytest.mark.integration, needs_sglang]
KEYS = [hashlib.sha256(bytes([i])).hexdigest() for i in range(2)]


def start_with(monkeypatch: pytest.MonkeyPatch, kv_cache_dtype: str) -> None:
    """SGLang's own context as after a start with this --kv-cache-dtype."""
    context = sglang_runtime("sglang.srt.runtime_context")
    arguments = sglang_runtime("sglang.srt.server_args").ServerArgs
    spaces = sglang_runtime("sglang.srt.arg_groups.arg_utils").namespace_of(arguments)
    bag = context._ConfigBag(spaces["kv_cache_dtype"])
    bag._set("kv_cache_dtype", kv_cache_dtype)
    monkeypatch.setattr(context.get_context(), "_config_bags", {spaces["kv_cache_dtype"]: bag})


def test_sglangs_flag_says_which_fp8_format_the_pool_holds(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = mha_pool("page_first", 16, torch.uint8)
    found = {}
    for flag in ("fp8_e4m3", "fp8_e5m2", "fp8_e4m3"):
        start_with(monkeypatch, flag)
        storage = attach(pool)
        found[flag] = storage.batch_exists(KEYS[:1])
        storage.batch_set_v1(KEYS[:1], torch.arange(16))
    assert found == {"fp8_e4m3": 1, "fp8_e5m2": 0}
    start_with(monkeypatch, "auto")
    with pytest.raises(ConfigError, match="set kv_dtype in the extra config"):
        attach(pool)


def test_side_pools_of_two_fp8_formats_never_meet(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as those of sliding windows, which hold KV too."""
    transfer = sglang_module("sglang.srt.mem_cache.hicache_storage").PoolTransfer
    pool, window = (mha_pool("page_first", 16, torch.uint8) for _ in range(2))
    indices = torch.arange(16)
    hits = []
    for flag in ("fp8_e4m3", "fp8_e5m2"):
        start_with(monkeypatch, flag)
        storage = attach(pool)
        storage.register_mem_host_pool_v2(window, "swa")
        storage.on_host_pools_registered()
        swa = transfer("swa", host_indices=indices, keys=KEYS[:1])
        hits.append(storage.batch_get_v2([swa])["swa"])
        assert storage.batch_set_v2([swa]) == {"swa": [True]}
    assert hits == [[False], [False]]


def test_an_index_of_bytes_beside_other_kv_needs_no_format(attach: Callable[..., Any]) -> None:
    storage = attach(mha_pool("page_first", 16))
    storage.register_mem_host_pool_v2(mha_pool("page_first", 16, torch.uint8), "indexer")


def test_a_pool_of_block_groups_never_shortens_a_prefix(attach: Callable[..., Any]) -> None:
    module = sglang_module("sglang.srt.mem_cache.hicache_storage")
    pool = mha_pool("page_first", 16)
    storage = attach(pool)
    storage.batch_set_v1(KEYS, torch.arange(32))
    blocks = module.PoolTransfer("blocks", keys=KEYS, hit_policy=module.PoolHitPolicy.BLOCK_GROUPS)
    found = storage.batch_exists_v2(KEYS, [blocks])
    assert found.kv_hit_pages == 2 and found.extra_pool_hit_pages == {"kv": 2}


class _Lost:
    """A tensor on a device that is gone."""

    def __init__(self, like: torch.Tensor) -> None:
        self._like = like

    def cpu(self) -> Any:
        raise RuntimeError("CUDA error: unspecified launch failure")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._like, name)


def test_a_tensor_that_cannot_be_copied_to_the_host_is_a_counted_error(
    attach: Callable[..., Any],
) -> None:
    pool = mha_pool("page_first", 16)
    storage = attach(pool)
    fill(pool)
    pages = [pool.get_data_page(0), _Lost(pool.get_data_page(16))]
    assert not storage.batch_set(KEYS, pages)
    assert storage.stats()["kv"]["errors"] == 1 and storage.batch_exists(KEYS) == 0
    assert storage.set(KEYS[0], pages[0])
    assert storage.batch_get_v1(KEYS[:1], torch.arange(16)) == [True]
    assert len(page_bytes(pool, torch.arange(16))) == 1
