"""Pages of SGLang's own host pools go to the plug-in's store and come back bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mooncake_store import MooncakeStore
from page_files import stored_files
from sglang_pools import fill, mha_pool, mla_pool, page_bytes, page_keys, wipe
from sglang_wheel import create_storage, extra_config, needs_sglang, storage_config

pytestmark = [pytest.mark.integration, needs_sglang]

MHA_LAYOUTS = ["layer_first", "page_first", "page_first_direct", "page_head"]
MLA_LAYOUTS = ["layer_first", "page_first", "page_first_direct"]
POOLS = [(mha_pool, layout) for layout in MHA_LAYOUTS] + [(mla_pool, lay) for lay in MLA_LAYOUTS]
MakePool = Callable[[str, int], Any]


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
