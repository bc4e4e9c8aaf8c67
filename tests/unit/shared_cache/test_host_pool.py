from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvloop.shared_cache import host_pool
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.hicache_names import Codec, HostLayout
from kvloop.shared_cache.host_layout import effective_layout, page_bytes
from kvloop.shared_cache.host_pool import HostPool, copy_pages
from kvloop.shared_cache.memory_limit import available_memory
from kvloop.shared_cache.page_object import TRAILER_BYTES, PageShape

SHAPE = PageShape(num_layers=2, page_size=4, num_kv_heads=2, head_size=8, itemsize=4, head_groups=2)


def test_views_addresses_and_array_are_the_same_memory() -> None:
    pool = HostPool(SHAPE, 3)
    pool.group_view(2, 1)[:4] = b"here"
    start = SHAPE.object_bytes
    assert bytes(pool.view(2)[start : start + 4]) == b"here"
    assert pool.array[2, start : start + 4].tobytes() == b"here"
    assert pool.array.shape == (3, SHAPE.slot_bytes)
    assert pool.address(2, 1) == pool.base_address + 2 * SHAPE.slot_bytes + start
    assert pool.array.ctypes.data == pool.base_address


def test_every_object_is_page_aligned() -> None:
    pool = HostPool(SHAPE, 3)
    assert all(pool.address(slot, group) % 4096 == 0 for slot in range(3) for group in range(2))


def test_a_pool_beyond_the_memory_left_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_pool, "available_memory", lambda: SHAPE.slot_bytes)
    HostPool(SHAPE, 1)
    with pytest.raises(ConfigError, match=r"only 0\.00 GiB of memory are left"):
        HostPool(SHAPE, 2)


LAYOUTS: list[HostLayout] = ["page_first_direct", "page_first", "layer_first"]
ORDERS = {
    "page_first_direct": (0, 1, 2, 3, 4, 5),
    "page_first": (0, 3, 1, 2, 4, 5),
    "layer_first": (1, 2, 0, 3, 4, 5),
}
"""Memory order of [slot, layer, k|v, token, head, size]."""


def numbered(shape: PageShape, num_slots: int) -> npt.NDArray[np.uint8]:
    """[slot, layer, k|v, token, head, bytes] of random bytes."""
    heads = shape.num_kv_heads // shape.head_groups
    sizes = (num_slots, shape.num_layers, 2, shape.page_size, heads)
    random = np.random.default_rng(7)
    return random.integers(0, 256, (*sizes, shape.head_size * shape.payload_itemsize), np.uint8)


@pytest.mark.parametrize("layout", ["page_first", "layer_first"])
@pytest.mark.parametrize("codec", ["none", "fp8"])
def test_a_layout_has_its_order_in_memory(layout: HostLayout, codec: Codec) -> None:
    shape = replace(SHAPE, codec=codec)
    pool = HostPool(shape, 3, layout)
    for group in range(2):
        wanted = numbered(shape, 3)
        pool.payload(group)[...] = wanted
        start = pool.payload(group).ctypes.data - pool.base_address
        memory = bytes(pool._view[start : start + wanted.nbytes])
        assert start % 4096 == 0
        assert memory == wanted.transpose(ORDERS[layout]).tobytes()


@pytest.mark.parametrize("codec", ["none", "int8"])
def test_page_first_direct_is_the_object(codec: Codec) -> None:
    shape = replace(SHAPE, codec=codec)
    pool = HostPool(shape, 3)
    for group in range(2):
        wanted = numbered(shape, 3)
        pool.payload(group)[...] = wanted
        view = pool.group_view(1, group)
        assert bytes(view[: shape.payload_bytes]) == wanted[1].tobytes()
        if (scales := pool.scales(group)) is not None:
            scales[1] = np.arange(scales[1].size, dtype=np.float32).reshape(scales[1].shape)
            at = shape.payload_bytes + TRAILER_BYTES
            assert bytes(view[at : at + shape.scales_bytes]) == scales[1].tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_two_elements_share_memory(layout: HostLayout) -> None:
    shape = replace(SHAPE, codec="int8")
    pool = HostPool(shape, 3, layout)
    for group in range(2):
        scales = pool.scales(group)
        assert scales is not None
        pool.payload(group)[...] += 1
        scales.view(np.uint8)[...] += 1
    counts = np.bincount(np.frombuffer(pool._view, np.uint8))
    each = shape.payload_bytes + shape.scales_bytes
    assert counts.tolist() == [pool.num_bytes - 3 * 2 * each, 3 * 2 * each]


def test_the_plain_layouts_have_no_objects() -> None:
    pool = HostPool(SHAPE, 3, "layer_first")
    assert not pool.holds_objects
    for ask in (pool.view, pool.address, lambda slot: pool.array):
        with pytest.raises(AssertionError, match="layer_first"):
            ask(0)


@settings(max_examples=60, deadline=None)
@given(
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    sizes=st.tuples(st.integers(1, 3), st.sampled_from([1, 4, 16]), st.integers(1, 3)),
    groups=st.integers(1, 3),
    codec=st.sampled_from(["none", "int8", "fp8"]),
    slots=st.integers(1, 4).flatmap(
        lambda n: st.tuples(st.permutations(range(4)), st.permutations(range(4))).map(
            lambda two: (two[0][:n], two[1][:n])
        )
    ),
)
def test_pages_are_converted_bit_for_bit_and_nothing_else_changes(
    layouts: tuple[HostLayout, HostLayout],
    sizes: tuple[int, int, int],
    groups: int,
    codec: Codec,
    slots: tuple[list[int], list[int]],
) -> None:
    layers, tokens, heads = sizes
    shape = PageShape(
        num_layers=layers,
        page_size=tokens,
        num_kv_heads=heads * groups,
        head_size=4,
        itemsize=2,
        head_groups=groups,
        codec=codec,
    )
    source, target = (HostPool(shape, 4, layout) for layout in layouts)
    for pool in (source, target):
        pool._view[:] = np.random.default_rng(id(pool) % 1000).bytes(pool.num_bytes)
    before = [arrays(target, slot) for slot in range(4)]
    mine, theirs = slots
    copy_pages(source, mine, target, theirs)
    for slot in range(4):
        wanted = arrays(source, mine[theirs.index(slot)]) if slot in theirs else before[slot]
        assert arrays(target, slot) == wanted


def arrays(pool: HostPool, slot: int) -> list[bytes]:
    """What a slot holds, in the order of the object."""
    found = [pool.payload(group)[slot].tobytes() for group in range(pool.shape.head_groups)]
    scales = [pool.scales(group) for group in range(pool.shape.head_groups)]
    return found + [array[slot].tobytes() for array in scales if array is not None]


def test_direct_copies_have_no_page_first() -> None:
    assert effective_layout("page_first", "direct") == "page_first_direct"
    assert effective_layout("page_first", "kernel") == "page_first"
    for layout in ("layer_first", "page_first_direct"):
        for io_backend in ("kernel", "direct"):
            assert effective_layout(layout, io_backend) == layout


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("codec", ["none", "int8"])
def test_the_memory_of_a_page_is_what_a_pool_takes_for_it(layout: HostLayout, codec: Codec) -> None:
    shape = replace(SHAPE, codec=codec)
    pool = HostPool(shape, 64, layout)
    assert 0 <= pool.num_bytes - 64 * page_bytes(shape, layout) < 4 * 4096


def write_limits(root: Path, cgroup: str, files: dict[str, str]) -> tuple[Path, Path]:
    proc, groups = root / "proc", root / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    (proc / "self" / "cgroup").write_text(cgroup)
    for name, text in files.items():
        path = groups / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc, groups


def test_the_tightest_control_group_v2_on_the_way_up_counts(tmp_path: Path) -> None:
    files = {
        "a/b/memory.max": "max\n",
        "a/b/memory.current": "10\n",
        "a/memory.max": "5000\n",
        "a/memory.current": "3000\n",
        "a/memory.stat": "anon 5\ninactive_file 500\n",
    }
    assert available_memory(*write_limits(tmp_path, "0::/a/b\n", files)) == 2500


def test_a_control_group_v1_counts(tmp_path: Path) -> None:
    files = {
        "memory/x/memory.limit_in_bytes": "4000\n",
        "memory/x/memory.usage_in_bytes": "1000\n",
    }
    assert available_memory(*write_limits(tmp_path, "3:cpu:/\n4:memory:/x\n", files)) == 3000


def test_without_control_groups_the_machine_counts(tmp_path: Path) -> None:
    assert available_memory(*write_limits(tmp_path, "", {})) == 8000 * 1024
