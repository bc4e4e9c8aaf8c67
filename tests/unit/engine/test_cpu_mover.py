"""Pages between L1, L2 and L3: every layout, head group and codec."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from running import wait_for

from kvloop.engine.codec import Quantised
from kvloop.engine.cpu_mover import CpuMover, Run, runs
from kvloop.engine.kv_pool import KVPool
from kvloop.engine.model_config import ModelConfig
from kvloop.engine.page_mover import make_mover
from kvloop.shared_cache.errors import TransferError
from kvloop.shared_cache.factory import open_backend
from kvloop.shared_cache.guard import GuardedBackend
from kvloop.shared_cache.hicache_names import Codec, HostLayout
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape
from kvloop.shared_cache.page_store import PageStore

CONFIG = ModelConfig.from_dict(
    {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 8,
        "intermediate_size": 8,
        "vocab_size": 8,
    }
)
LAYOUTS: list[HostLayout] = ["page_first_direct", "page_first", "layer_first"]
NAMESPACE = b"n" * 32


def filled(dtype: torch.dtype) -> KVPool:
    """Every element its own magnitude, so that no page, layer, token or head can stand for another.

    Heads differ by powers of two.
    """
    pool = KVPool(CONFIG, 10, 4, dtype)
    noise = torch.randn(pool.tensor.shape, generator=torch.Generator().manual_seed(1))
    pool.tensor.copy_(noise * torch.tensor([1.0, 8.0, 64.0, 1024.0])[:, None])
    return pool


def page_shape(dtype: torch.dtype, groups: int = 1, codec: Codec = "none") -> PageShape:
    return PageShape(
        num_layers=3,
        page_size=4,
        num_kv_heads=4,
        head_size=8,
        itemsize=dtype.itemsize,
        head_groups=groups,
        codec=codec,
    )


class Tiers:
    """Two device pools, a host pool of each, and the movers between."""

    def __init__(self, shape: PageShape, layout: HostLayout, dtype: torch.dtype) -> None:
        self.near, self.far = filled(dtype), KVPool(CONFIG, 10, 4, dtype)
        self.host = HostPool(shape, 6, layout)
        self.out = make_mover(self.near, self.host, "kernel")
        self.back = make_mover(self.far, self.host, "kernel")

    def close(self) -> None:
        self.out.close()
        self.back.close()


@pytest.fixture
def tiers(request: pytest.FixtureRequest) -> Iterator[Tiers]:
    layout, groups, dtype, codec = request.param
    tiers = Tiers(page_shape(dtype, groups, codec), layout, dtype)
    yield tiers
    tiers.close()


def every(codecs: list[Codec]) -> pytest.MarkDecorator:
    dtypes = [torch.bfloat16, torch.float32]
    cases = [
        pytest.param((layout, groups, dtype, codec), id=f"{layout}-{groups}-{dtype}-{codec}")
        for layout in LAYOUTS
        for groups in (1, 2, 4)
        for dtype in dtypes
        for codec in codecs
    ]
    return pytest.mark.parametrize("tiers", cases, indirect=True)


@every(["none"])
def test_pages_go_to_host_slots_and_back_bit_for_bit(tiers: Tiers) -> None:
    for group in range(tiers.host.shape.head_groups):
        tiers.host.payload(group)[...] = 255
    tiers.out.backup([1, 7, 3], [5, 0, 2]).wait()
    for group in range(tiers.host.shape.head_groups):
        assert (tiers.host.payload(group)[[1, 3, 4]] == 255).all()
    tiers.back.load_back([9, 0, 4], [5, 0, 2]).wait()
    assert torch.equal(tiers.far.tensor[:, :, [9, 0, 4]], tiers.near.tensor[:, :, [1, 7, 3]])
    assert not tiers.far.tensor[:, :, [1, 2, 3, 5, 6, 7, 8]].any()


@every(["none"])
def test_pages_come_back_bit_for_bit_from_files(tiers: Tiers, tmp_path: Path) -> None:
    staging = None if tiers.host.holds_objects else HostPool(tiers.host.shape, 2)
    store = file_store(tmp_path, tiers.host, staging)
    keys = [secrets.token_bytes(32) for _ in range(3)]
    tiers.out.backup([1, 7, 3], [5, 0, 2]).wait()
    slots = tiers.host.alloc(6)
    assert slots is not None
    assert store.save(keys, [5, 0, 2]) == [True] * 3
    for group in range(tiers.host.shape.head_groups):
        tiers.host.payload(group)[...] = 0
    assert store.load(keys, [3, 4, 5]) == ["prefill"] * 3
    tiers.back.load_back([9, 0, 4], [3, 4, 5]).wait()
    assert torch.equal(tiers.far.tensor[:, :, [9, 0, 4]], tiers.near.tensor[:, :, [1, 7, 3]])
    assert store.close()


def file_store(root: Path, pool: HostPool, staging: HostPool | None) -> PageStore:
    objects = staging or pool
    guard = GuardedBackend(
        lambda: open_backend("file", {"root": str(root)}, objects, NAMESPACE),
        objects,
        name="file",
        namespace=NAMESPACE,
    )
    assert guard.wait_attached(10)
    return PageStore(guard, pool, namespace=NAMESPACE, writer="prefill", staging=staging)


def test_a_file_written_from_one_layout_is_read_into_any_other(tmp_path: Path) -> None:
    shape, dtype = page_shape(torch.bfloat16, 2), torch.bfloat16
    keys = [secrets.token_bytes(32) for _ in range(9)]
    for i, layout in enumerate(LAYOUTS):
        tiers = Tiers(shape, layout, dtype)
        tiers.out.backup([3 * i, 3 * i + 1, 3 * i + 2], [0, 1, 2]).wait()
        store = stored(tmp_path, tiers.host)
        assert store.save(keys[3 * i : 3 * i + 3], [0, 1, 2]) == [True] * 3
        assert store.close()
        tiers.close()
    for layout in LAYOUTS:
        tiers = Tiers(shape, layout, dtype)
        store = stored(tmp_path, tiers.host)
        for i in (0, 3, 6):
            assert store.load(keys[i : i + 3], [0, 1, 2]) == ["prefill"] * 3
            tiers.back.load_back([i, i + 1, i + 2], [0, 1, 2]).wait()
        assert torch.equal(tiers.far.tensor[:, :, :9], tiers.near.tensor[:, :, :9])
        assert store.close()
        tiers.close()


def stored(root: Path, pool: HostPool) -> PageStore:
    """A store whose slots are taken, as callers own them."""
    pool.alloc(pool.num_free)
    return file_store(root, pool, None if pool.holds_objects else HostPool(pool.shape, 2))


ERRORS: dict[Quantised, float] = {"int8": 0.5 / 127, "fp8": 16 / 448}
"""Of the largest magnitude of a head: half a step, and half of fp8's widest step."""


@every(["int8", "fp8"])
def test_a_codec_errs_by_half_a_step_of_each_heads_own_scale(tiers: Tiers) -> None:
    tiers.out.backup([1, 7, 3], [5, 0, 2]).wait()
    tiers.back.load_back([9, 0, 4], [5, 0, 2]).wait()
    found = tiers.far.tensor[:, :, [9, 0, 4]].float()
    wanted = tiers.near.tensor[:, :, [1, 7, 3]].float()
    peak = wanted.abs().amax(dim=(3, 5), keepdim=True)
    codec = tiers.host.shape.codec
    assert codec != "none"
    rounding = 2**-8 if tiers.near.dtype == torch.bfloat16 else 1e-6
    error = (found - wanted).abs() / peak
    assert error.max() <= ERRORS[codec] + rounding
    assert error.max() > ERRORS[codec] / 4  # it is lossy indeed


@every(["int8", "fp8"])
def test_a_page_that_was_coded_once_stays_as_it_is(tiers: Tiers) -> None:
    tiers.out.backup([1], [5]).wait()
    tiers.back.load_back([2], [5]).wait()
    again = make_mover(tiers.far, tiers.host, "kernel")
    again.backup([2], [3]).wait()
    again.close()
    for group in range(tiers.host.shape.head_groups):
        payload, scales = tiers.host.payload(group), tiers.host.scales(group)
        assert scales is not None
        assert torch.allclose(torch.tensor(scales[3]), torch.tensor(scales[5]), rtol=2**-8)
        codes = [torch.tensor(payload[slot]).view(torch.int8).int() for slot in (3, 5)]
        assert (codes[0] - codes[1]).abs().max() <= 1


def test_coded_pages_take_a_byte_an_element_and_a_scale_a_head() -> None:
    plain, coded = page_shape(torch.bfloat16, 2), page_shape(torch.bfloat16, 2, "int8")
    near = filled(torch.bfloat16)
    mover = make_mover(near, HostPool(plain, 2), "kernel")
    assert mover.backup([0, 1], [0, 1]).num_bytes == 2 * 3 * 2 * 4 * 4 * 8 * 2
    mover.close()
    mover = make_mover(near, HostPool(coded, 2), "kernel")
    assert mover.backup([0, 1], [0, 1]).num_bytes == 2 * (3 * 2 * 4 * 4 * 8 + 3 * 2 * 4 * 4)
    mover.close()


def test_neighbouring_pages_are_joined_where_both_sides_go_on() -> None:
    pages, slots = [4, 5, 6, 7, 1, 0], [2, 3, 9, 10, 11, 12]
    assert runs(pages, slots) == [Run(4, 2, 2), Run(6, 9, 2), Run(1, 11, 1), Run(0, 12, 1)]
    assert runs([], []) == []


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("codec", ["none", "int8", "fp8"])
def test_joined_pages_are_moved_as_single_ones_are(layout: HostLayout, codec: Codec) -> None:
    tiers = Tiers(page_shape(torch.float32, 2, codec), layout, torch.float32)
    tiers.out.backup([2, 3, 4], [1, 2, 3]).wait()
    tiers.back.load_back([5, 6, 7], [1, 2, 3]).wait()
    for page, slot in ((2, 0), (3, 4), (4, 5)):
        tiers.out.backup([page], [slot]).wait()
    tiers.back.load_back([0, 9, 1], [0, 4, 5]).wait()
    assert torch.equal(tiers.far.tensor[:, :, [5, 6, 7]], tiers.far.tensor[:, :, [0, 9, 1]])
    assert tiers.far.tensor[:, :, 6].any()
    tiers.close()


class SlowLayers:
    """A group whose layers come in one by one, when they are let."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.allowed = threading.Semaphore(0)
        self.fail_at = fail_at

    def load_back(self, run: Run, layer: int) -> None:
        assert self.allowed.acquire(timeout=30)
        if layer == self.fail_at:
            raise RuntimeError("the memory is gone")


def slow_mover(slow: SlowLayers) -> CpuMover:
    mover = CpuMover(filled(torch.float32), HostPool(page_shape(torch.float32), 2))
    mover._groups = [slow]  # type: ignore[list-item]
    return mover


def test_a_layer_is_usable_before_the_last_one_is_in() -> None:
    slow = SlowLayers()
    mover = slow_mover(slow)
    move = mover.load_back([1], [0])
    slow.allowed.release()
    move.before_layer(0)
    assert not move.is_done and move.seconds is None
    passed: list[int] = []

    def compute() -> None:
        for layer in range(3):
            move.before_layer(layer)
            passed.append(layer)

    threads = [threading.Thread(target=compute) for _ in range(2)]
    for thread in threads:
        thread.start()
    slow.allowed.release()
    move.await_layer(1)
    assert 2 not in passed
    slow.allowed.release()
    move.wait()
    for thread in threads:
        thread.join(30)
    assert sorted(passed) == [0, 0, 1, 1, 2, 2]
    assert move.is_done and move.seconds is not None
    mover.close()


def test_load_backs_that_fail_raise_to_all_who_wait_and_not_to_the_next() -> None:
    slow = SlowLayers(fail_at=1)
    mover = slow_mover(slow)
    move = mover.load_back([1], [0])
    slow.allowed.release(2)
    with pytest.raises(TransferError, match="the memory is gone"):
        move.wait()
    with pytest.raises(TransferError, match="the memory is gone"):
        move.before_layer(2)
    move.before_layer(0)
    assert move.is_done and move.seconds is None
    slow.fail_at = None
    slow.allowed.release(3)
    mover.load_back([1], [0]).wait()
    mover.close()


def test_a_load_back_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvloop.engine.cpu_mover._DEADLINE_S", 0.05)
    slow = SlowLayers()
    mover = slow_mover(slow)
    move = mover.load_back([1], [0])
    with pytest.raises(TransferError, match="layer 2 is not in after"):
        move.wait()
    assert not move.is_done
    slow.allowed.release(3)
    mover.close()


def test_a_closed_mover_fails_what_it_has_not_begun() -> None:
    slow = SlowLayers()
    mover = slow_mover(slow)
    first, second = mover.load_back([1], [0]), mover.load_back([1], [0])
    slow.allowed.release()
    first.before_layer(0)
    closing = threading.Thread(target=mover.close)
    closing.start()
    wait_for("the call", lambda: mover._is_closed)
    slow.allowed.release(2)
    closing.join(30)
    first.wait()
    for move in (second, mover.load_back([1], [0])):
        with pytest.raises(TransferError, match="the node is stopping"):
            move.wait()
    assert not mover._thread.is_alive()


def test_nothing_to_move_is_done_at_once() -> None:
    tiers = Tiers(page_shape(torch.float32), "layer_first", torch.float32)
    for move in (tiers.out.backup([], []), tiers.back.load_back([], [])):
        move.wait()
        assert move.is_done and move.num_bytes == 0 and move.seconds is not None
    tiers.back.load_back([], []).before_layer(2)
    tiers.close()
