"""The plug-in as SGLang's own factory loads it, on SGLang's own host pools."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from flaky_backend import CLASS, MODULE
from mooncake_store import MooncakeStore
from running import wait_for
from sglang_pools import fill, mha_pool, mla_pool, page_bytes, wipe
from sglang_wheel import create_storage, extra_config, needs_sglang, sglang_module, storage_config

from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.sglang.pool_store import PoolStore

pytestmark = [pytest.mark.integration, needs_sglang]

MHA_LAYOUTS = ["layer_first", "page_first", "page_first_direct", "page_head"]
MLA_LAYOUTS = ["layer_first", "page_first", "page_first_direct"]
POOLS = [(mha_pool, layout) for layout in MHA_LAYOUTS] + [(mla_pool, lay) for lay in MLA_LAYOUTS]
MakePool = Callable[[str, int], Any]


def page_keys(n: int, seed: str = "") -> list[str]:
    return [hashlib.sha256(f"{seed}{i}".encode()).hexdigest() for i in range(n)]


@pytest.fixture
def opened() -> Iterator[list[Any]]:
    storages: list[Any] = []
    yield storages
    for storage in storages:
        storage.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "l3"


@pytest.fixture
def attach(root: Path, opened: list[Any]) -> Callable[..., Any]:
    """Loads the plug-in over a file store; changes are HiCacheStorageConfig's fields."""

    def create(pool: Any, fields: dict[str, Any] | None = None, **changes: Any) -> Any:
        config = extra_config("file", {"root": str(root)}) | (fields or {})
        opened.append(create_storage(storage_config(config, **changes), pool))
        return opened[-1]

    return create


def stored_files(root: Path) -> list[Path]:
    """Page files; records are elsewhere."""
    return [path for path in root.rglob("kvl1-*") if path.is_file()]


@pytest.mark.parametrize("page_size", [1, 16, 64])
@pytest.mark.parametrize(("make", "layout"), POOLS)
def test_pages_of_every_layout_come_back_bit_for_bit(
    attach: Callable[..., Any], make: MakePool, layout: str, page_size: int
) -> None:
    pool, keys = make(layout, page_size), page_keys(4)
    storage = attach(pool, is_mla_model=make is mla_pool)
    fill(pool)
    written, read = pool.alloc(4 * page_size), pool.alloc(4 * page_size)
    before = page_bytes(pool, written)
    assert storage.batch_exists(keys) == 0
    assert storage.batch_set_v1(keys, written) == [True] * 4
    assert storage.batch_exists([*keys, *page_keys(1, "other")]) == 4
    assert storage.batch_get_v1(keys, read) == [True] * 4
    assert page_bytes(pool, read) == before
    assert page_bytes(pool, written) == before


@pytest.mark.parametrize("layout", ["page_first", "page_first_direct"])
def test_pages_whose_k_and_v_differ_in_width_come_back(
    attach: Callable[..., Any], layout: str
) -> None:
    pool, keys = mha_pool(layout, 16, v_dim=4), page_keys(2)
    storage = attach(pool)
    fill(pool)
    indices = pool.alloc(32)
    before = [buffer.clone().view(torch.uint8) for buffer in pool.kv_buffer]
    assert storage.batch_set_v1(keys, indices) == [True] * 2
    wipe(pool)
    assert storage.batch_get_v1(keys, indices) == [True] * 2
    for buffer, kept in zip(pool.kv_buffer, before, strict=True):
        num = 2 if layout == "page_first_direct" else 32
        assert torch.equal(buffer.view(torch.uint8)[:num], kept[:num])


@pytest.mark.parametrize(("make", "layout"), POOLS)
def test_both_of_sglangs_interfaces_read_each_others_pages(
    attach: Callable[..., Any], make: MakePool, layout: str
) -> None:
    pool, (by_index, by_tensor) = make(layout, 16), page_keys(2)
    storage = attach(pool, is_mla_model=make is mla_pool)
    fill(pool)
    indices = pool.alloc(32)
    first, second = page_bytes(pool, indices)
    assert storage.batch_set_v1([by_index], indices[:16]) == [True]
    assert storage.set(by_tensor, pool.get_data_page(int(indices[16])))
    target = pool.get_dummy_flat_data_page()
    assert storage.get(by_index, target) is target
    assert target.view(torch.uint8).numpy().tobytes() == first
    wipe(pool)
    assert storage.batch_get_v1([by_tensor], indices[:16]) == [True]
    assert page_bytes(pool, indices)[0] == second


def test_two_layouts_that_differ_only_between_pages_share_them(attach: Callable[..., Any]) -> None:
    one, other, third = (mha_pool(lay, 16) for lay in MHA_LAYOUTS[:3])
    fill(one)
    assert attach(one).batch_set_v1(page_keys(1), one.alloc(16)) == [True]
    assert attach(third).batch_get_v1(page_keys(1), third.alloc(16)) == [True]
    assert page_bytes(third, torch.arange(16)) == page_bytes(one, torch.arange(16))
    assert attach(other).batch_exists(page_keys(1)) == 0


def test_tensors_that_do_not_fit_are_refused(attach: Callable[..., Any]) -> None:
    pool, [key] = mha_pool("page_first", 16), page_keys(1)
    storage = attach(pool)
    page = pool.get_data_page(0)
    assert not storage.set(key, page[:-1]) and not storage.set(key) and not storage.exists(key)
    assert storage.set(key, target_location=page)
    assert storage.get(key, torch.empty(3)) is None
    assert storage.get(key, torch.empty(2, page.numel(), dtype=page.dtype)[:, 0]) is None
    assert storage.get(page_keys(1, "missing")[0], page) is None
    fresh = storage.get(key)
    assert torch.equal(fresh, page.view(torch.uint8))
    assert storage.stats()["kv"]["errors"] == 2


def test_batches_of_tensors_are_answered_one_by_one(attach: Callable[..., Any]) -> None:
    pool, keys = mha_pool("layer_first", 16), page_keys(3)
    storage = attach(pool)
    fill(pool)
    data = [pool.get_data_page(start) for start in (0, 16)]
    assert storage.batch_set(keys[:2], data)
    targets = [pool.get_dummy_flat_data_page() for _ in keys]
    pages = storage.batch_get(keys, targets)
    assert [page is target for page, target in zip(pages, targets, strict=True)] == [1, 1, 0]
    assert torch.equal(pages[1].view(torch.uint8), data[1].view(torch.uint8))


def test_a_batch_of_128_pages_goes_through_a_small_staging_pool(
    attach: Callable[..., Any],
) -> None:
    pool, keys = mha_pool("page_first", 4, tokens=1024), page_keys(128)
    storage = attach(pool, {"staging_bytes": 5 * 4096})
    fill(pool)
    written, read = pool.alloc(512), pool.alloc(512)
    assert storage.batch_set_v1(keys, written) == [True] * 128
    assert storage.batch_get_v1(keys, read) == [True] * 128
    assert page_bytes(pool, read) == page_bytes(pool, written)
    stats = storage.stats()["kv"]
    size = 128 * pool.get_size_per_token() * 4
    assert stats["copied_in_bytes"] == stats["copied_out_bytes"] == size
    assert stats["copied_in_pages"] == stats["copied_out_pages"] == 128


def test_pages_that_are_stored_are_not_copied_again(attach: Callable[..., Any]) -> None:
    pool, keys = mha_pool("page_first", 16), page_keys(3)
    storage = attach(pool)
    assert storage.batch_set_v1(keys[:2], pool.alloc(32)) == [True] * 2
    assert storage.batch_set_v1(keys, pool.alloc(48)) == [True] * 3
    assert storage.stats()["kv"]["copied_in_pages"] == 3


def test_empty_batches_are_answered(attach: Callable[..., Any]) -> None:
    storage, none = attach(mha_pool("page_first", 16)), torch.empty(0, dtype=torch.int64)
    assert storage.batch_exists([]) == 0
    assert storage.batch_get_v1([], none) == storage.batch_set_v1([], none) == []
    assert storage.batch_get([], []) == [] and storage.batch_set([], [])


def test_pages_behind_a_hole_are_not_claimed(attach: Callable[..., Any]) -> None:
    pool, keys = mha_pool("page_first", 16), page_keys(3)
    storage = attach(pool)
    storage.batch_set_v1([keys[0], keys[2]], pool.alloc(32))
    assert storage.batch_exists(keys) == 1
    assert storage.batch_get_v1(keys, pool.alloc(48))[:2] == [True, False]


def test_indices_outside_of_the_pool_are_refused(attach: Callable[..., Any]) -> None:
    pool, keys = mha_pool("page_first", 16), page_keys(1)
    storage = attach(pool)
    for start in (-16, pool.size, 10**12):
        assert storage.batch_set_v1(keys, torch.arange(start, start + 16)) == [False]
        assert storage.batch_get_v1(keys, torch.arange(start, start + 16)) == [False]
    assert storage.batch_get_v1(keys, torch.arange(15)) == [False]
    assert storage.batch_get_v1(keys, None) == [False]
    assert storage.stats()["kv"]["errors"] == 8


STRANGE = ["..", "../../escape", "/etc/passwd", "a\x00b", "k" * 10_000, "", "é\ud800", "A" * 64]


def test_strange_keys_are_harmless_and_apart(attach: Callable[..., Any], root: Path) -> None:
    pool = mha_pool("page_first", 16)
    storage = attach(pool)
    fill(pool)
    keys = [*STRANGE, page_keys(1)[0], page_keys(1)[0] + "_k"]
    indices = pool.alloc(16 * len(keys))
    before = page_bytes(pool, indices)
    assert storage.batch_set_v1(keys, indices) == [True] * len(keys)
    wipe(pool)
    assert storage.batch_get_v1(keys, indices) == [True] * len(keys)
    assert page_bytes(pool, indices) == before
    assert len(stored_files(root)) == len(keys)
    assert {path.name for path in root.parent.iterdir()} == {root.name}


@pytest.mark.parametrize("place", ["payload", "trailer", "end"])
def test_a_damaged_page_is_a_counted_miss_and_leaves_the_pool_alone(
    attach: Callable[..., Any], root: Path, place: str
) -> None:
    pool, keys = mha_pool("page_first", 16), page_keys(1)
    storage = attach(pool)
    fill(pool)
    written, read = pool.alloc(16), pool.alloc(16)
    storage.batch_set_v1(keys, written)
    [path] = stored_files(root)
    data = bytearray(path.read_bytes())
    payload = len(page_bytes(pool, written)[0])
    if place == "end":
        del data[-1:]
    else:
        data[7 if place == "payload" else payload + 40] ^= 1
    path.write_bytes(data)
    before = page_bytes(pool, read)
    assert storage.batch_get_v1(keys, read) == [False]
    assert page_bytes(pool, read) == before
    stats = storage.stats()["kv"]
    assert stats.get("prefetch_fault_pages", 0) + stats.get("prefetch_miss_pages", 0) == 1
    assert storage.batch_set_v1(keys, written) == [True]
    assert storage.batch_get_v1(keys, read) == [True]


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


def flaky(root: Path, **failures: float) -> dict[str, Any]:
    config = {
        "backend_name": "flaky",
        "module_path": MODULE,
        "class_name": CLASS,
        "root": str(root),
        **failures,
    }
    return extra_config("dynamic", config, dynamic_modules=[MODULE], deadline_s=1.0)


@pytest.mark.parametrize(
    "failures",
    [
        {"misses": 0.3},
        {"errors": 0.1},
        {"stalls": 0.1, "stall_s": 1.5},
        {"lost_writes": 0.3},
        {"flips": 0.3},
        {"misses": 0.1, "errors": 0.05, "flips": 0.1, "lost_writes": 0.1},
    ],
)
def test_a_failing_store_costs_misses_and_never_bytes(
    root: Path, opened: list[Any], failures: dict[str, float]
) -> None:
    pool, keys = mha_pool("layer_first", 2, tokens=1024), page_keys(128)
    storage = create_storage(storage_config(flaky(root, **failures)), pool)
    opened.append(storage)
    fill(pool)
    written, read = pool.alloc(256), pool.alloc(256)
    right = page_bytes(pool, written)

    def num_hits() -> int:
        storage.batch_set_v1(keys, written)
        assert 0 <= storage.batch_exists(keys) <= 128
        found = storage.batch_get_v1(keys, read)
        pages = page_bytes(pool, read)
        hits = [(page, kept) for page, kept, ok in zip(pages, right, found, strict=True) if ok]
        assert all(page == kept for page, kept in hits)
        return len(hits)

    hits = [num_hits() for _ in range(8)]
    assert any(hits) or wait_for("a hit between the failures", num_hits)
    assert page_bytes(pool, written) == right
    if failures.get("flips"):
        assert storage.stats()["kv"]["fault_payload"]


def test_a_call_is_given_up_at_its_deadline(root: Path, opened: list[Any]) -> None:
    config = flaky(root, stalls=0.5, stall_s=2.0) | {"deadline_s": 0.3, "open_timeout_s": 1.0}
    storage = create_storage(storage_config(config), mha_pool("page_first", 16))
    opened.append(storage)

    def last_error() -> str:
        assert storage.batch_exists(page_keys(1)) == 0
        return str(storage.status()["kv"]["last_error"])

    wait_for("the deadline in the status", lambda: "0.3 s" in last_error())


def test_the_start_waits_for_the_store_as_long_as_it_is_told(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(PoolStore, "wait_open", lambda self, timeout_s: waits.append(timeout_s))
    attach(mha_pool("page_first", 16), {"open_timeout_s": 0.7})
    assert waits == [0.7]


def test_sglangs_own_failure_injector_wraps_the_plug_in(
    attach: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, opened: list[Any]
) -> None:
    monkeypatch.setenv("SGLANG_TEST_HICACHE_BACKEND_RANDOM_FAILURE", "0.5")
    pool, keys = mha_pool("page_first", 16), page_keys(8)
    storage = attach(pool)
    opened.remove(storage)
    opened.append(storage._backend)  # SGLang's wrapper has no close
    module = sglang_module("sglang.srt.mem_cache.hicache_storage")
    assert isinstance(storage, module.HiCacheStorageFailureInjector)
    fill(pool)
    written, read = pool.alloc(128), pool.alloc(128)
    for _ in range(20):
        assert set(storage.batch_set_v1(keys, written)) in ({True}, {False})
        assert storage.batch_exists(keys) in (0, 8)
        if all(storage.batch_get_v1(keys, read)):
            assert page_bytes(pool, read) == page_bytes(pool, written)


def test_sglang_starts_while_the_store_is_away_and_finds_it_later(
    root: Path, opened: list[Any]
) -> None:
    root.parent.mkdir(exist_ok=True)
    root.write_text("a file where the directory should be")
    config = extra_config("file", {"root": str(root)}, open_timeout_s=0.1)
    pool = mha_pool("page_first", 16)
    storage = create_storage(storage_config(config), pool)
    opened.append(storage)
    assert storage.batch_exists(page_keys(1)) == 0
    assert storage.batch_set_v1(page_keys(1), pool.alloc(16)) == [False]
    assert storage.stats()["kv"]["copied_in_pages"] == 0
    root.unlink()
    assert storage._kv.store._store.guard.wait_attached(30)
    assert storage.batch_set_v1(page_keys(1), pool.alloc(16)) == [True]


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


def test_pages_go_through_a_mooncake_store(
    mooncake_store: MooncakeStore, opened: list[Any]
) -> None:
    config = extra_config("mooncake", {"master_server_address": mooncake_store.address})
    pool, keys = mha_pool("page_first", 4, tokens=1024), page_keys(128)
    storage = create_storage(storage_config(config), pool)
    opened.append(storage)
    fill(pool)
    written, read = pool.alloc(512), pool.alloc(512)
    assert storage.batch_set_v1(keys, written) == [True] * 128
    assert storage.batch_exists(keys) == 128
    assert storage.batch_get_v1(keys, read) == [True] * 128
    assert page_bytes(pool, read) == page_bytes(pool, written)
    storage.clear()
    assert storage.batch_exists(keys) == 0


def test_the_extra_config_is_json_as_sglang_reads_it(root: Path) -> None:
    from sglang_wheel import sglang_runtime

    config = extra_config("file", {"root": str(root)})
    text = json.dumps({**config, "prefetch_threshold": 64})
    module = sglang_runtime("sglang.srt.mem_cache.hybrid_cache.hybrid_cache_controller")
    parsed = module.HybridCacheController.parse_storage_backend_extra_config(text)
    assert parsed[0] == config and parsed[1] == 64
