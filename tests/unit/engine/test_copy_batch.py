"""The copies that the direct I/O backend plans, carried out by memmove."""

from __future__ import annotations

import ctypes
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvloop.engine.copiers import backend_for, make_copier
from kvloop.engine.copy_batch import Copies, plan_copies
from kvloop.engine.page_grid import Extent, Grid, layer_spans, word_bytes
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.hicache_names import HostLayout
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape

LAYOUTS: list[HostLayout] = ["page_first_direct", "page_first", "layer_first"]
LAYERS, TOKENS, HEADS, HEAD_BYTES = 3, 4, 4, 16
DEVICE_PAGES, SLOTS = 9, 8


def shape_of(head_groups: int) -> PageShape:
    return PageShape(
        num_layers=LAYERS,
        page_size=TOKENS,
        num_kv_heads=HEADS,
        head_size=HEAD_BYTES // 2,
        itemsize=2,
        head_groups=head_groups,
    )


def carry_out(copies: Copies) -> None:
    for source, target, size in zip(*(column.tolist() for column in copies), strict=True):
        ctypes.memmove(target, source, size)


def grid_of(array: np.ndarray) -> Grid:
    return Grid.of(array.ctypes.data, array.strides)


def device_pages() -> np.ndarray:
    """Bytes as a device pool has them, indexed [page, layer, k|v, token, head, byte]."""
    size = (LAYERS, 2, DEVICE_PAGES, TOKENS, HEADS, HEAD_BYTES)
    pool = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    return pool.transpose(2, 0, 1, 3, 4, 5)


def copy(device: np.ndarray, pages: list[int], host: HostPool, slots: list[int]) -> int:
    heads = host.shape.group_heads
    count = 0
    for group in range(host.shape.head_groups):
        mine = device[:, :, :, :, group * heads : (group + 1) * heads]
        extent = Extent(layers=LAYERS, halves=2, tokens=TOKENS, row=heads * HEAD_BYTES)
        grids = grid_of(mine), grid_of(host.payload(group))
        copies = plan_copies(grids[0], np.array(pages), grids[1], np.array(slots), extent)
        carry_out(copies)
        count += len(copies.sizes)
    return count


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("groups", [1, 2])
@given(data=st.data())
def test_planned_copies_move_exactly_the_bytes_of_the_pages(layout, groups, data):
    count = data.draw(st.integers(0, SLOTS))
    pages = data.draw(st.permutations(range(DEVICE_PAGES)))[:count]
    slots = data.draw(st.permutations(range(SLOTS)))[:count]
    device, host = device_pages(), HostPool(shape_of(groups), SLOTS, layout)
    copy(device, pages, host, slots)
    heads = host.shape.group_heads
    for group in range(groups):
        mine = device[:, :, :, :, group * heads : (group + 1) * heads]
        assert (host.payload(group)[slots] == mine[pages]).all()
        others = [slot for slot in range(SLOTS) if slot not in slots]
        assert not host.payload(group)[others].any()


def test_neighbouring_pages_of_a_layer_first_pool_are_one_copy_a_layer_and_half():
    host = HostPool(shape_of(1), SLOTS, "layer_first")
    assert copy(device_pages(), [2, 3, 4, 7], host, [1, 2, 3, 4]) == LAYERS * 2 * 2


def test_a_page_object_staged_as_such_is_one_copy():
    host = HostPool(shape_of(1), SLOTS)
    staged = np.zeros((5, LAYERS, 2, TOKENS, HEADS, HEAD_BYTES), np.uint8)
    extent = Extent(layers=LAYERS, halves=2, tokens=TOKENS, row=HEADS * HEAD_BYTES)
    grids = grid_of(staged), grid_of(host.payload(0))
    copies = plan_copies(grids[0], np.arange(5), grids[1], np.array([0, 2, 4, 6, 7]), extent)
    assert copies.sizes.tolist() == [host.shape.payload_bytes] * 5


def test_words_are_as_wide_as_every_row_is_aligned():
    grid = Grid(address=4096, page=64, layer=32, half=16, token=8)
    assert word_bytes(grid, grid, 8) == 8
    assert word_bytes(grid, Grid(address=4100, page=64, layer=32, half=16, token=8), 8) == 4
    assert word_bytes(grid, grid, 6) == 2


def test_layers_come_alone_where_they_are_large_and_together_where_they_are_small():
    assert list(layer_spans(3, 1000, 1000)) == [(0, 1), (1, 1), (2, 1)]
    assert list(layer_spans(5, 400, 1000)) == [(0, 2), (2, 2), (4, 1)]
    assert list(layer_spans(3, 0, 1000)) == [(0, 3)]
    assert list(layer_spans(5, 1000, 1000, least_layers=3)) == [(0, 3), (3, 2)]


@pytest.mark.parametrize(("has_triton", "expected"), [(True, "kernel"), (False, "direct")])
def test_pieces_too_short_for_copy_engines_go_by_the_kernel_where_it_can_run(
    has_triton, expected, monkeypatch, caplog
):
    monkeypatch.setattr("kvloop.engine.copiers.find_spec", lambda name: has_triton or None)
    assert backend_for("direct", 24 << 10) == expected
    assert ("--hicache-io-backend direct" in caplog.text) == has_triton
    assert backend_for("direct", 128 << 10) == "direct"
    assert backend_for("kernel", 64) == "kernel"


def test_the_kernel_backend_without_triton_is_refused_in_words(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "kvloop.engine.page_kernel", raising=False)
    with pytest.raises(
        ConfigError, match=r"--hicache-io-backend kernel needs Triton .* use direct"
    ):
        make_copier("kernel", torch.device("cuda"), to_host=True)
