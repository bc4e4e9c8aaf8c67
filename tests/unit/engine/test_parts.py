"""A node's pools, mover and store fit together, whatever the flags."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from decode_engine import LAYERS, PAGE, save_config
from running import wait_for

from kvloop.engine.node_config import NodeConfig
from kvloop.engine.parts import NodeParts, build_parts
from kvloop.shared_cache.errors import ConfigError

KEYS = [bytes([i]) * 32 for i in range(3)]


_built: list[NodeParts] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _built:
        parts = _built.pop()
        parts.mover.close()
        assert parts.store.close()


def build(path: Path, role: str = "prefill", **flags: Any) -> NodeParts:
    config = NodeConfig(
        role=role,
        model=save_config(path),
        load_format="dummy",
        dtype="float32",
        device="cpu",
        page_size=PAGE,
        max_total_tokens=8 * PAGE,
        hicache_storage_backend="file",
        hicache_storage_backend_extra_config={"root": str(path / "l3")},
        **flags,
    )
    parts = build_parts(config)
    _built.append(parts)
    return parts


@pytest.mark.parametrize("layout", ["page_first_direct", "page_first", "layer_first"])
@pytest.mark.parametrize("codec", ["none", "int8", "fp8"])
def test_pages_go_to_l3_and_come_back_on_a_prefill_node(
    tmp_path: Path, layout: str, codec: str
) -> None:
    parts = build(tmp_path, hicache_mem_layout=layout, hicache_codec=codec)
    assert parts.pool.layout == layout and parts.pool.num_slots == 16
    parts.kv.tensor.normal_()
    wanted = parts.kv.tensor[:, :, [5, 1, 2]].clone()
    wait_for("the store", lambda: parts.store.is_attached)
    slots = parts.pool.alloc(3)
    assert slots is not None
    parts.mover.backup([5, 1, 2], slots).wait()
    assert parts.store.save(KEYS, slots) == [True] * 3
    parts.kv.tensor.zero_()
    parts.pool.free(slots)
    slots = parts.pool.alloc(3)
    assert slots is not None
    assert parts.store.load(KEYS, slots) == ["prefill"] * 3
    parts.mover.load_back([0, 7, 4], slots).wait()
    found = parts.kv.tensor[:, :, [0, 7, 4]]
    error = (found - wanted).abs().max() / wanted.abs().max()
    assert error <= {"none": 0.0, "int8": 0.5 / 127, "fp8": 16 / 448}[codec] * 1.01


def test_decode_holds_objects_and_reads_what_prefill_wrote_in_any_layout(tmp_path: Path) -> None:
    prefill = build(tmp_path, hicache_mem_layout="layer_first", hicache_codec="int8")
    decode = build(tmp_path, "decode", hicache_mem_layout="layer_first", hicache_codec="int8")
    assert decode.pool.holds_objects and not prefill.pool.holds_objects
    assert decode.identity.namespace == prefill.identity.namespace
    prefill.kv.tensor.normal_()
    there, here = prefill.pool.alloc(2), decode.pool.alloc(2)
    assert there is not None and here is not None
    wait_for("the stores", lambda: prefill.store.is_attached and decode.store.is_attached)
    prefill.mover.backup([3, 4], there).wait()
    assert prefill.store.save(KEYS[:2], there) == [True, True]
    assert decode.store.load(KEYS[:2], here) == ["prefill", "prefill"]
    decode.mover.load_back([1, 2], here).wait()
    prefill.mover.load_back([5, 6], there).wait()
    assert torch.equal(decode.kv.tensor[:, :, [1, 2]], prefill.kv.tensor[:, :, [5, 6]])


def test_codecs_part_the_namespaces(tmp_path: Path) -> None:
    spaces = {build(tmp_path, hicache_codec=codec).identity.namespace for codec in ("none", "int8")}
    assert len(spaces) == 2


def test_the_shape_is_the_models(tmp_path: Path) -> None:
    shape = build(tmp_path, hicache_codec="fp8").shape
    assert (shape.num_layers, shape.page_size, shape.itemsize) == (LAYERS, PAGE, 4)
    assert shape.payload_itemsize == 1


def test_a_pool_beyond_the_memory_left_names_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvloop.engine.parts.available_memory", lambda: 300_000_000)
    with pytest.raises(ConfigError, match=r"--hicache-size 1 asks for 1\.00 GB .* would fit"):
        build(tmp_path, hicache_size=1.0)
