"""The plug-in's parts that need no SGLang."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import kvloop.shared_cache.sglang as plugin_module
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.sglang import installed
from kvloop.shared_cache.sglang.config import parse_plugin_config
from kvloop.shared_cache.sglang.host_pages import HostPages, gather, scatter
from kvloop.shared_cache.sglang.hybrid import PoolHits, restorable_lengths
from kvloop.shared_cache.sglang.identity import Component, flat_shape, is_replicated, namespace_of
from kvloop.shared_cache.sglang.keys import page_key


class Indices(list[int]):
    def tolist(self) -> list[int]:
        return list(self)


class Pool:
    """Four pages of two tokens and two layers; K and V of each token are three bytes."""

    page_size, layer_num, size, head_num, dtype = 2, 2, 8, 1, "torch.bfloat16"
    v_buffer = None

    def __init__(self, layout: str = "layer_first") -> None:
        self.layout = layout
        self.memory = np.arange(2 * 2 * 8 * 3, dtype=np.uint8).reshape(2, 2, 8, 3)  # k|v, layer

    def get_page_buffer_meta(self, indices: Indices) -> tuple[list[int], list[int]]:
        places = [
            self.memory[half, layer, start].ctypes.data
            for start in indices.tolist()[::2]
            for layer in range(2)
            for half in range(2)
        ]
        return places, [6] * len(places)


def test_importing_the_plug_in_needs_no_sglang_and_its_class_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sglang", None)
    monkeypatch.setitem(sys.modules, "sglang.srt.mem_cache.hicache_storage", None)
    with pytest.raises(ImportError, match="install sglang into the same environment"):
        installed.storage_base()
    with pytest.raises(AttributeError, match="no attribute 'Other'"):
        _ = plugin_module.Other


def test_a_digest_is_its_own_key_and_other_strings_are_hashed() -> None:
    digest = "0f" * 32
    assert page_key(digest) == bytes.fromhex(digest)
    others = [digest.upper(), digest + "_k", digest + "\n", "..", "\x00", "", "k" * 10_000]
    keys = {page_key(key) for key in [digest, *others]}
    assert len(keys) == 1 + len(others) and all(len(key) == 32 for key in keys)


def test_pieces_of_layer_first_are_all_of_k_and_then_all_of_v() -> None:
    pool = Pool()
    pages = HostPages(pool, Indices([0, 1]))
    assert pages.page_bytes == 24
    [pieces] = pages.pieces(Indices([4, 5]), 1)
    target = np.zeros(24, np.uint8)
    gather(pieces, target.ctypes.data)
    assert target.tolist() == pool.memory[:, :, 4:6].reshape(-1).tolist()
    pool.memory[:, :, 4:6] = 0
    scatter(target.ctypes.data, pieces)
    assert pool.memory.reshape(-1).tolist() == list(range(96))


def test_pages_without_an_address_of_their_own_are_refused() -> None:
    class Dummy(Pool):
        def get_page_buffer_meta(self, indices: Indices) -> Any:
            raise AttributeError("'NoneType' object has no attribute 'data_ptr'")

    with pytest.raises(ConfigError, match="Dummy with --hicache-mem-layout layer_first"):
        HostPages(Dummy(), Indices([0, 1]))


@pytest.mark.parametrize("indices", [[-2, -1], [8, 9], [7, 8], [0], [0, 1, 2]])
def test_indices_that_are_not_these_pages_have_no_pieces(indices: list[int]) -> None:
    with pytest.raises(ValueError, match="host ind"):
        HostPages(Pool(), Indices([0, 1])).pieces(Indices(indices), 1)


def config(**changes: Any) -> SimpleNamespace:
    fields = {"model_name": "m", "is_mla_model": False, "tp_rank": 0, "tp_size": 1}
    fields |= {"pp_rank": 0, "pp_size": 1, "attn_cp_rank": 0, "attn_cp_size": 1}
    return SimpleNamespace(**fields | changes)


def component(name: str = "kv", pool: Any = None) -> Component:
    pool = pool or Pool()
    return Component(name, pool, HostPages(pool, Indices([0, 1])))


def of(component: Component, kv_dtype: str = "bfloat16", tag: str = "", **changes: Any) -> bytes:
    return namespace_of(config(**changes), component, kv_dtype, tag)


def test_everything_that_a_pages_bytes_depend_on_is_in_its_namespace() -> None:
    wider = Pool()
    wider.head_num = 2
    tokens = Pool("page_first")
    others = [
        of(component(), model_name="other"),
        of(component(), kv_dtype="fp8_e5m2"),
        of(component(), tag="b"),
        of(component(), is_mla_model=True),
        of(component(), tp_size=2),
        of(component(), tp_size=2, tp_rank=1),
        of(component(), pp_size=2),
        of(component(), pp_size=2, pp_rank=1),
        of(component(), attn_cp_size=2),
        of(component(), attn_cp_size=2, attn_cp_rank=1),
        of(component("draft")),
        of(component(pool=wider)),
        of(component(pool=tokens)),
    ]
    assert len({of(component()), *others}) == 1 + len(others)
    assert of(component(), dcp_size=1, dcp_rank=0, dp_rank=3) == of(component())
    assert of(component(pool=Pool("page_first_direct"))) == of(component())


def test_mla_ranks_share_all_but_states_and_heads() -> None:
    class Latent(Pool):
        head_num: int

        def __getattribute__(self, name: str) -> Any:
            if name == "head_num":
                raise AttributeError(name)
            return super().__getattribute__(name)

    mla = config(is_mla_model=True)
    assert is_replicated(mla, component(pool=Latent()))
    assert not is_replicated(mla, component("mamba", Latent()))
    assert not is_replicated(mla, component("draft", Pool()))
    assert not is_replicated(config(), component(pool=Latent()))
    latent = component(pool=Latent())
    assert of(latent, is_mla_model=True, tp_size=8, tp_rank=3) == of(latent, is_mla_model=True)


@pytest.mark.parametrize(("num_bytes", "tokens"), [(6144, 16), (7, 1), (9, 2), (0, 4), (2, 64)])
def test_a_page_of_any_size_fits_its_object(num_bytes: int, tokens: int) -> None:
    shape = flat_shape(num_bytes, tokens)
    assert num_bytes <= shape.payload_bytes <= num_bytes + 2
    if num_bytes == 6144:
        assert (shape.page_size, shape.payload_bytes) == (tokens, num_bytes)


def test_a_prefix_ends_where_the_last_pages_of_a_pool_are_there() -> None:
    present = [True, False, True, True, False]
    assert restorable_lengths(PoolHits(present, None), 5) == [1]
    assert restorable_lengths(PoolHits(present, 1), 5) == [1, 3, 4]
    assert restorable_lengths(PoolHits(present, 2), 5) == [1, 4]
    assert restorable_lengths(PoolHits(present, 0), 3) == [1, 3]
    assert restorable_lengths(PoolHits([], None), 0) == []


def test_sglangs_own_fields_are_passed_over_and_unknown_ones_are_named() -> None:
    own = {"backend_name": "a", "module_path": "b", "class_name": "c", "interface_v1": 1}
    assert parse_plugin_config(own | {"backend": "file"}).backend == "file"
    with pytest.raises(ConfigError, match="lacks the field 'backend'"):
        parse_plugin_config(None)
    with pytest.raises(ConfigError, match="unknown field 'root'"):
        parse_plugin_config({"backend": "file", "root": "/x"})
