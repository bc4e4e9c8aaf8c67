"""The host pool as SGLang's classes see theirs."""

from __future__ import annotations

import os

import pytest
import torch

from kvloop.shared_cache.backends.dynamic.memory import PoolFacade, PoolMemory
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape

SHAPE = PageShape(
    num_layers=1, page_size=16, num_kv_heads=2, head_size=8, itemsize=2, head_groups=2
)
LATENT = PageShape(num_layers=2, page_size=64, num_kv_heads=1, head_size=288, itemsize=2)
"""As of MLA with 576 elements a token: one latent, told as a K and a V half."""


def facade_of(shape: PageShape) -> tuple[HostPool, PoolFacade]:
    pool = HostPool(shape, 4)
    for slot in range(4):
        pool.view(slot)[:] = os.urandom(shape.slot_bytes)
    return pool, PoolFacade(PoolMemory(pool), shape.page_size)


@pytest.mark.parametrize("shape", [SHAPE, LATENT])
def test_each_page_of_the_facade_is_one_object_in_place(shape: PageShape) -> None:
    pool, facade = facade_of(shape)
    groups = shape.head_groups
    numbers = [2 * groups, 3 * groups + groups - 1]
    indices = facade.indices(numbers)
    assert len(indices) == 2 * facade.page_size and facade.page_size == shape.page_size
    addresses, sizes = facade.get_page_buffer_meta(indices)
    assert addresses == [pool.address(2, 0), pool.address(3, groups - 1)]
    assert sizes == [shape.object_bytes] * 2
    for number, (slot, group) in zip(numbers, [(2, 0), (3, groups - 1)], strict=True):
        page = facade.get_data_page(facade.indices([number])[0])
        assert page.numpy().tobytes() == bytes(pool.group_view(slot, group))


def test_a_page_can_be_copied_out_and_in() -> None:
    pool, facade = facade_of(SHAPE)
    copy = facade.get_dummy_flat_data_page()
    assert copy.nbytes == SHAPE.object_bytes and not copy.any()
    copy.copy_(facade.get_data_page(torch.tensor(0)))
    facade.set_from_flat_data_page(facade.indices([5])[0], copy)
    assert bytes(pool.group_view(2, 1)) == bytes(pool.group_view(0, 0))


def test_its_sizes_agree_with_one_another() -> None:
    _, facade = facade_of(LATENT)
    assert facade.get_ksize_per_token() * facade.page_size == LATENT.object_bytes
    assert facade.get_size_per_token() == facade.kv_cache_dim * facade.dtype.itemsize
    assert facade.kv_buffer.shape == (facade.page_num, 1, facade.page_size, 1, facade.kv_cache_dim)
    assert facade.kv_buffer.nbytes == 4 * LATENT.slot_bytes
    assert facade.get_hybrid_pool_buffer()[0].data_ptr() == facade.kv_buffer.data_ptr()
    assert facade.is_stride_page_aligned(4096)


def test_a_page_size_that_does_not_part_an_object_is_told_as_one_token() -> None:
    odd = PageShape(num_layers=1, page_size=48, num_kv_heads=1, head_size=8, itemsize=2)
    pool, facade = facade_of(odd)
    assert facade.page_size == 1
    addresses, sizes = facade.get_page_buffer_meta(facade.indices([1, 3]))
    assert addresses == [pool.address(1), pool.address(3)] and sizes == [odd.object_bytes] * 2
