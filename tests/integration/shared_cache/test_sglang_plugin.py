"""The plug-in as SGLang's own factory loads it: its settings, and whose pages are whose."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from page_files import stored_files
from sglang_pools import mha_pool, mla_pool, page_keys
from sglang_wheel import extra_config, needs_sglang

from kvloop.shared_cache.errors import ConfigError

pytestmark = [pytest.mark.integration, needs_sglang]


@pytest.mark.parametrize(
    "change",
    [
        {"model_name": "org/other"},
        {"tp_rank": 1, "tp_size": 2},
        {"tp_size": 2},
        {"pp_rank": 1, "pp_size": 2},
        {"pp_size": 2},
        {"attn_cp_size": 2},
        {"attn_cp_rank": 1, "attn_cp_size": 2},
    ],
)
def test_a_rank_never_reads_pages_of_another_shard(
    attach: Callable[..., Any], change: dict[str, Any]
) -> None:
    pool = mha_pool("page_first", 16)
    attach(pool).batch_set_v1(page_keys(1), pool.alloc(16))
    assert attach(pool).batch_exists(page_keys(1)) == 1
    assert attach(pool, **change).batch_exists(page_keys(1)) == 0


def test_pools_of_other_types_or_sizes_never_meet(attach: Callable[..., Any]) -> None:
    pool = mha_pool("page_first", 16)
    attach(pool).batch_set_v1(page_keys(1), pool.alloc(16))
    for other in (
        mha_pool("page_first", 16, torch.float16),
        mha_pool("page_first", 64),
        mla_pool("page_first", 16),
    ):
        assert attach(other).batch_exists(page_keys(1)) == 0
    assert attach(pool, {"release_tag": "b"}).batch_exists(page_keys(1)) == 0


def test_of_mla_ranks_one_writes_and_all_read(attach: Callable[..., Any], root: Path) -> None:
    pool, keys = mla_pool("page_first", 16), page_keys(2)
    first, second = (attach(pool, is_mla_model=True, tp_rank=rank, tp_size=2) for rank in range(2))
    indices = pool.alloc(32)
    assert second.batch_set_v1(keys, indices) == [True] * 2 and not stored_files(root)
    assert first.batch_set_v1(keys, indices) == [True] * 2
    assert second.batch_exists(keys) == 2
    assert second.batch_get_v1(keys, indices) == [True] * 2


def test_data_parallel_ranks_share_pages(attach: Callable[..., Any]) -> None:
    pool = mha_pool("page_first", 16)
    attach(pool, dp_rank=0).batch_set_v1(page_keys(1), pool.alloc(16))
    assert attach(pool, dp_rank=1).batch_exists(page_keys(1)) == 1


def test_fp8_pages_are_stored_only_where_their_format_is_known(
    attach: Callable[..., Any],
) -> None:
    pool = mha_pool("page_first", 16, torch.uint8)
    with pytest.raises(ConfigError, match="set kv_dtype in the extra config"):
        attach(pool)
    attach(pool, {"kv_dtype": "fp8_e4m3"}).batch_set_v1(page_keys(1), pool.alloc(16))
    assert attach(pool, {"kv_dtype": "fp8_e4m3"}).batch_exists(page_keys(1)) == 1
    assert attach(pool, {"kv_dtype": "fp8_e5m2"}).batch_exists(page_keys(1)) == 0


def test_a_model_without_a_name_needs_a_tag(attach: Callable[..., Any]) -> None:
    pool = mha_pool("page_first", 16)
    with pytest.raises(ConfigError, match="release_tag in the extra config"):
        attach(pool, model_name=None)
    assert attach(pool, {"release_tag": "a"}, model_name=None).batch_exists(page_keys(1)) == 0


def test_a_layout_without_page_addresses_is_refused(attach: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="page_unified does not say where its pages lie"):
        attach(mha_pool("page_unified", 16))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"backend": "nope"}, "unknown storage backend 'nope'"),
        ({"config": {"rot": "/x"}}, "unknown field 'rot'"),
        ({"surprise": 1}, "unknown field 'surprise'"),
        ({"staging_bytes": 0}, "staging_bytes"),
        ({"deadline_s": 0}, "deadline_s"),
    ],
)
def test_a_wrong_setting_fails_the_attach_and_names_itself(
    attach: Callable[..., Any], config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        attach(mha_pool("page_first", 16), config)


def test_clear_removes_this_ranks_pages_only(attach: Callable[..., Any]) -> None:
    pool = mha_pool("page_first", 16)
    mine, theirs = attach(pool), attach(pool, tp_rank=1, tp_size=2)
    for storage in (mine, theirs):
        storage.batch_set_v1(page_keys(1), pool.alloc(16))
    mine.clear()
    assert mine.batch_exists(page_keys(1)) == 0 and theirs.batch_exists(page_keys(1)) == 1


def test_sglangs_own_metrics_are_filled(attach: Callable[..., Any]) -> None:
    pool = mha_pool("page_first", 16)
    assert attach(pool).get_stats() is None
    storage = attach(pool, enable_storage_metrics=True)
    storage.batch_set_v1(page_keys(2), pool.alloc(32))
    storage.batch_get_v1(page_keys(2), pool.alloc(32))
    metrics = storage.get_stats()
    assert metrics.backup_pgs == metrics.prefetch_pgs == [2]
    assert len(metrics.backup_bandwidth) == len(metrics.prefetch_bandwidth) == 1
    assert storage.get_stats().prefetch_pgs == []


def test_a_namespace_tells_tools_what_its_pages_are(attach: Callable[..., Any], root: Path) -> None:
    from kvloop.shared_cache.factory import open_backend
    from kvloop.shared_cache.host_pool import HostPool
    from kvloop.shared_cache.manifest import RECORD, decode_manifest

    pool = mha_pool("page_first", 16)
    storage = attach(pool)
    storage.batch_set_v1(page_keys(1), pool.alloc(16))
    namespace = bytes.fromhex(storage.status()["kv"]["namespace"])
    shape = storage._kv.store._staging.shape
    backend = open_backend("file", {"root": str(root)}, HostPool(shape, 1), namespace)
    record = backend.get_small(RECORD)
    backend.close()
    manifest = decode_manifest(record or b"", namespace)
    assert manifest is not None
    assert (manifest.shape.page_size, manifest.model, manifest.kv_dtype) == (
        16,
        "model",
        "bfloat16",
    )
    assert manifest.shape.payload_bytes == pool.get_size_per_token() * 16


def test_the_extra_config_is_json_as_sglang_reads_it(root: Path) -> None:
    from sglang_wheel import sglang_runtime

    config = extra_config("file", {"root": str(root)})
    text = json.dumps({**config, "prefetch_threshold": 64})
    module = sglang_runtime("sglang.srt.mem_cache.hybrid_cache.hybrid_cache_controller")
    parsed = module.HybridCacheController.parse_storage_backend_extra_config(text)
    assert parsed[0] == config and parsed[1] == 64
