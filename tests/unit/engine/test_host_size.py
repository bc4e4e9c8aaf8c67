"""The size of L2: by flag, and against the memory that is there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kvloop.engine.host_size import HostSize, host_layout, host_size, staging_slots
from kvloop.engine.node_config import NodeConfig
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.page_object import PageShape

SHAPE = PageShape(num_layers=8, page_size=16, num_kv_heads=4, head_size=64, itemsize=2)
EACH = SHAPE.slot_bytes
HEADROOM = 256_000_000


def config(role: str = "prefill", **flags: Any) -> NodeConfig:
    return NodeConfig(role=role, model="m", page_size=16, max_total_tokens=16 * 1000, **flags)


def size(available: int | None = None, reserved: int = 0, **flags: Any) -> HostSize:
    return host_size(config(**flags), SHAPE, available=available, reserved=reserved)


def test_prefill_holds_a_multiple_of_the_device_pages() -> None:
    assert size(hicache_ratio=2.5).num_slots == 2500
    assert size(hicache_ratio=0.0001).num_slots == 1


def test_a_size_in_gb_goes_before_the_ratio() -> None:
    assert size(hicache_ratio=2.5, hicache_size=0.2).num_slots == 200_000_000 // EACH


def test_decode_stages_in_half_a_gb_of_objects_whatever_the_layout() -> None:
    found = size(role="decode", hicache_ratio=9.0, hicache_mem_layout="layer_first")
    assert found == HostSize(
        layout="page_first_direct", num_slots=500_000_000 // EACH, num_staging=0
    )


def test_other_layouts_get_more_pages_of_a_size_and_a_staging_pool() -> None:
    found = size(hicache_size=0.2, hicache_mem_layout="layer_first")
    assert found.layout == "layer_first"
    assert found.num_slots == 200_000_000 // SHAPE.payload_bytes > 200_000_000 // EACH
    assert found.num_staging == staging_slots(SHAPE, found.num_slots) > 0


def test_a_layout_that_direct_copies_cannot_serve_is_exchanged() -> None:
    asked = {"hicache_mem_layout": "page_first", "hicache_io_backend": "direct"}
    assert host_layout(config(**asked)) == "page_first_direct"
    assert host_layout(config(**(asked | {"hicache_io_backend": "kernel"}))) == "page_first"


def test_a_codec_holds_twice_the_pages() -> None:
    shape = replace(SHAPE, num_layers=32)
    flags = config(hicache_size=0.2)
    plain, coded = (
        host_size(flags, replace(shape, codec=codec), available=None, reserved=0).num_slots
        for codec in ("none", "int8")
    )
    assert 1.9 < coded / plain <= 2.0


def test_staging_holds_two_storage_calls_and_is_never_larger_than_the_pool() -> None:
    assert staging_slots(SHAPE, 10_000) == (128 << 20) // EACH
    assert staging_slots(replace(SHAPE, num_layers=2000), 10_000) == 16
    assert staging_slots(SHAPE, 5) == 5


def test_a_ratio_that_does_not_fit_names_one_that_does() -> None:
    room = 1500 * EACH
    with pytest.raises(ConfigError) as raised:
        size(available=room + HEADROOM, hicache_ratio=2.0)
    assert str(raised.value) == (
        f"--hicache-ratio 2 asks for {2000 * EACH / 1e9:.2f} GB of host memory, but "
        f"{room / 1e9:.2f} GB are left to this process; --hicache-ratio 1.5 would fit"
    )
    assert size(available=room + HEADROOM, hicache_ratio=1.5).num_slots == 1500


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_a_size_that_does_not_fit_names_one_that_does(role: str) -> None:
    available = 1_239_000_000 + HEADROOM
    wanted = (
        r"--hicache-size 3 asks for 3\.00 GB .* 1\.24 GB are left .*; --hicache-size 1\.23 would"
    )
    with pytest.raises(ConfigError, match=wanted):
        size(available=available, role=role, hicache_size=3.0)
    assert size(available=available, role=role, hicache_size=1.23).num_slots


def test_staging_and_the_device_pool_of_a_cpu_count_too() -> None:
    flags = {"hicache_size": 0.3, "hicache_mem_layout": "layer_first"}
    staging = staging_slots(SHAPE, 300_000_000 // SHAPE.payload_bytes) * EACH
    needed = 300_000_000 // SHAPE.payload_bytes * SHAPE.payload_bytes + staging + HEADROOM
    assert size(available=needed + 1000, reserved=1000, **flags)
    with pytest.raises(ConfigError, match="--hicache-size"):
        size(available=needed + 999, reserved=1000, **flags)


def test_where_nothing_fits_no_value_is_named() -> None:
    with pytest.raises(ConfigError, match=r"0\.00 GB are left to this process; no size fits"):
        size(available=1000, hicache_ratio=2.0)


def test_decodes_own_size_is_named_where_no_flag_was_given() -> None:
    with pytest.raises(ConfigError, match=r"--hicache-size 0\.5 asks for 0\.50 GB"):
        size(available=HEADROOM + 1000, role="decode")


def test_a_size_below_one_page_names_what_a_page_needs() -> None:
    with pytest.raises(ConfigError, match=rf"0.0001 GB holds no page of {EACH} bytes; give 0.001 "):
        size(hicache_size=0.0001)


def test_decodes_pool_holds_the_staging_that_is_asked_for() -> None:
    default = 500_000_000 // EACH
    assert size(role="decode", offload_staging_pages=default + 7).num_slots == default + 7
    assert size(role="decode", offload_staging_pages=7).num_slots == default
    assert size(role="prefill", offload_staging_pages=10**6).num_slots == 2000


def test_more_staging_than_the_size_holds_names_both_flags() -> None:
    wanted = r"--offload-staging-pages 900 is more than the \d+ pages .* --hicache-size 0.1 GB"
    with pytest.raises(ConfigError, match=wanted) as raised:
        size(role="decode", hicache_size=0.1, offload_staging_pages=900)
    advised = float(str(raised.value).rpartition("give ")[2].partition(" GB")[0])
    assert size(role="decode", hicache_size=advised, offload_staging_pages=900).num_slots >= 900


def test_staging_that_does_not_fit_names_a_number_of_pages_that_does() -> None:
    room = 3000 * EACH
    with pytest.raises(ConfigError, match="--offload-staging-pages 3000 would fit"):
        size(available=room + HEADROOM, role="decode", offload_staging_pages=9000)
