"""Pages between a CUDA pool and pinned host memory: bytes, order, and what is usable when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch

from kvloop.engine.batch import Segment, make_batch
from kvloop.engine.codec import decode, encode
from kvloop.engine.cuda_driver import register_host
from kvloop.engine.kv_pool import KVPool
from kvloop.engine.model_config import ModelConfig
from kvloop.engine.node_config import IOBackend
from kvloop.engine.page_mover import PageMover, make_mover
from kvloop.engine.pinned import pin
from kvloop.engine.transformer import Transformer
from kvloop.engine.weights import tensor_shapes
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.hicache_names import Codec, HostLayout
from kvloop.shared_cache.host_layout import effective_layout
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
LAYOUTS: list[HostLayout] = ["page_first_direct", "page_first", "layer_first"]
BACKENDS: list[IOBackend] = ["kernel", "direct"]
PAGES, SLOTS = [1, 7, 3, 4, 9, 0], [5, 0, 2, 3, 7, 1]
OTHERS = [2, 6, 8, 10, 11, 5]


@pytest.fixture(autouse=True)
def short_pieces_too(monkeypatch):
    """Tiny pages must go by the backend that a test names, though it is slow with them."""
    monkeypatch.setattr("kvloop.engine.copiers._SHORT_BYTES", 0)


class Bench:
    """Two tiers and the mover between them."""

    def __init__(
        self,
        layout: HostLayout,
        io_backend: IOBackend,
        *,
        groups: int = 1,
        codec: Codec = "none",
        layers: int = 3,
        heads: int = 4,
        head_size: int = 16,
        page_size: int = 16,
        num_pages: int = 12,
        num_slots: int = 8,
    ) -> None:
        self.config = config = ModelConfig.from_dict(
            {
                "architectures": ["LlamaForCausalLM"],
                "num_hidden_layers": layers,
                "num_attention_heads": heads,
                "num_key_value_heads": heads,
                "hidden_size": heads * head_size,
                "intermediate_size": 16,
                "vocab_size": 16,
            }
        )
        self.shape = PageShape(
            num_layers=layers,
            page_size=page_size,
            num_kv_heads=heads,
            head_size=head_size,
            itemsize=2,
            head_groups=groups,
            codec=codec,
        )
        self.kv = KVPool(config, num_pages, page_size, torch.bfloat16, "cuda")
        self.kv.tensor.normal_()
        self.host = HostPool(self.shape, num_slots, effective_layout(layout, io_backend))
        self.mover: PageMover = make_mover(self.kv, self.host, io_backend)

    def device(self, pages: Sequence[int]) -> torch.Tensor:
        """On the CPU: `[page, layer, k|v, token, head, size]`."""
        return self.kv.tensor[:, :, list(pages)].movedim(2, 0).cpu()

    def host_pages(self, slots: Sequence[int]) -> torch.Tensor:
        """The same of a host pool without codec."""
        groups = [self.host.payload(group)[list(slots)] for group in range(self.shape.head_groups)]
        views = [torch.from_numpy(group.copy()).view(torch.bfloat16) for group in groups]
        return torch.cat(views, 4)


@contextmanager
def bench(*args, **kwargs) -> Iterator[Bench]:
    one = Bench(*args, **kwargs)
    try:
        yield one
    finally:
        one.mover.close()


def large(layout: HostLayout = "page_first_direct", io_backend: IOBackend = "kernel"):
    """Moves that take the bus 10 ms and more: what does not wait for them comes too early."""
    return bench(
        layout, io_backend, layers=32, heads=8, head_size=128, page_size=64,
        num_pages=200, num_slots=200,
    )  # fmt: skip


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("io_backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pages_go_to_the_host_and_back_bit_for_bit(layout, io_backend, groups):
    with bench(layout, io_backend, groups=groups) as one:
        before = one.device(range(12))
        move = one.mover.backup(PAGES, SLOTS)
        move.wait()
        assert torch.equal(one.host_pages(SLOTS), before[PAGES])
        assert not one.host_pages([4, 6]).any()
        one.mover.load_back(OTHERS, SLOTS).wait()
        assert torch.equal(one.device(OTHERS), before[PAGES])
        assert torch.equal(one.device(PAGES), before[PAGES])
        assert move.num_bytes == len(PAGES) * groups * one.shape.payload_bytes
        assert move.is_done and move.seconds is not None and move.seconds > 0


@pytest.mark.parametrize("io_backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_odd_shapes_go_bit_for_bit(layout, io_backend):
    with bench(layout, io_backend, heads=3, head_size=10, page_size=4) as one:
        before = one.device(PAGES)
        one.mover.backup(PAGES, SLOTS)
        one.mover.load_back(OTHERS, SLOTS).wait()
        assert torch.equal(one.device(OTHERS), before)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("codec", ["int8", "fp8"])
@pytest.mark.parametrize("io_backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_codec_on_the_way_is_the_codec(layout, io_backend, codec, groups):
    with bench(layout, io_backend, codec=codec, groups=groups) as one:
        before = one.device(PAGES)
        one.mover.backup(PAGES, SLOTS)
        one.mover.load_back(OTHERS, SLOTS).wait()
        after = one.device(OTHERS)
        expected = decode(*encode(before, codec), torch.bfloat16)
        peak = before.float().abs().amax((3, 5), keepdim=True)
        rounding = before.float().abs() / 128  # of both results to bf16
        # A device may round a tie, or a division, the other way: by a step of the codec at most.
        step = peak / 127 if codec == "int8" else before.float().abs() / 8 + peak / 2**14
        assert ((after.float() - expected.float()).abs() <= step + rounding).all()
        assert ((after.float() - before.float()).abs() <= step / 2 + rounding).all()
        assert torch.equal(one.device(PAGES), before)


@pytest.mark.parametrize("codec", ["int8", "fp8"])
def test_the_fused_codec_makes_the_codes_and_scales_of_the_codec(codec):
    from kvloop.engine.codec_kernel import encode_pages

    heads = torch.randn(3, 2, 9, 16, 4, 24, device="cuda").mul_(5).to(torch.bfloat16)
    heads[0, 0, 3, 2, 1, 5], heads[0, 1, 3, 2, 1, 5] = torch.nan, -torch.inf
    heads[1, :, 3] = 0
    heads, pages = heads[..., 1:3, :], torch.tensor([3, 0, 8], device="cuda")
    codes = torch.zeros(3, 3, 2, 16, 2, 24, dtype=torch.uint8, device="cuda")
    scales = torch.zeros(3, 3, 2, 2, device="cuda")
    encode_pages(heads, pages, codes, scales, codec)
    expected = encode(heads[:, :, pages].movedim(2, 0), codec)
    assert torch.allclose(scales, expected.scales, rtol=1e-6, atol=0)
    differ = codes.view(expected.codes.dtype).float() - expected.codes.float()
    assert torch.count_nonzero(differ) <= 0.002 * differ.numel()
    assert differ.abs().max() <= (1 if codec == "int8" else 32)


@pytest.mark.parametrize("codec", ["int8", "fp8"])
def test_pages_coded_step_by_step_are_read_by_the_fused_codec(codec, monkeypatch):
    monkeypatch.setattr("kvloop.engine.page_coder.find_spec", lambda name: None)
    with bench("page_first_direct", "direct", codec=codec) as one:
        before = one.device(PAGES)
        one.mover.backup(PAGES, SLOTS).wait()
        one.mover.load_back(OTHERS, SLOTS).wait()
        stepwise = one.device(OTHERS)
        monkeypatch.undo()
        other = make_mover(one.kv, one.host, "direct")
        other.load_back(OTHERS, SLOTS).wait()
        assert torch.equal(one.device(OTHERS), stepwise)
        assert (stepwise.float() - before.float()).abs().max() < 0.3
        other.close()


@pytest.mark.parametrize("codec", ["none", "int8"])
def test_more_pages_than_a_buffer_holds_pass_through_the_ring(codec):
    with bench(
        "page_first_direct", "direct", groups=2, codec=codec, layers=8, heads=8, head_size=128,
        page_size=64, num_pages=200, num_slots=100,
    ) as one:  # fmt: skip
        pages, slots = list(range(100))[::-1], list(range(100))
        before = one.device(pages)
        one.mover.backup(pages, slots)
        one.mover.load_back(range(100, 200), slots).wait()
        after = one.device(range(100, 200))
        if codec == "none":
            assert torch.equal(after, before)
        else:
            assert (after.float() - before.float()).abs().max() < 0.05


@pytest.mark.parametrize("io_backend", BACKENDS)
def test_compute_after_before_layer_reads_the_loaded_pages(io_backend):
    with large(io_backend=io_backend) as one:
        pages, slots = list(range(100)), list(range(100, 200))
        before = one.kv.tensor[:, :, :100].clone()
        one.mover.backup(pages, slots)
        move = one.mover.load_back(range(100, 200), slots)
        read = []
        for layer in range(32):
            move.before_layer(layer)
            read.append(one.kv.tensor[layer, :, 100:].clone())
        assert torch.equal(torch.stack(read), before)


@pytest.mark.parametrize("io_backend", BACKENDS)
def test_an_early_layer_is_usable_before_the_last_one_is_in(io_backend):
    with large(io_backend=io_backend) as one:
        pages = list(range(200))
        one.mover.backup(pages, pages).wait()
        move = one.mover.load_back(pages, pages)
        move.before_layer(0)
        early = torch.cuda.Event(enable_timing=True)
        early.record()
        move.wait()
        # The device's own clock: the current stream went on before the move had ended.
        assert early.elapsed_time(move.ended) > 0.5 * move.began.elapsed_time(move.ended)


@pytest.mark.parametrize("io_backend", BACKENDS)
def test_a_backup_that_holds_the_device_is_not_overtaken_by_a_write_to_its_pages(io_backend):
    with large(io_backend=io_backend) as one:
        pages = list(range(200))
        before = one.device(pages)
        move = one.mover.backup(pages, pages)
        move.hold_device()
        one.kv.tensor.zero_()
        move.wait()
        assert torch.equal(one.host_pages(pages), before)


@pytest.mark.parametrize("io_backend", BACKENDS)
def test_a_backup_copies_what_was_computed_before_it(io_backend):
    with large(io_backend=io_backend) as one:
        pages = list(range(200))
        for value in range(30):
            one.kv.tensor.fill_(value)
        one.mover.backup(pages, pages).wait()
        assert (one.host_pages(pages) == 29).all()


@pytest.mark.parametrize("codec", ["none", "int8"])
@pytest.mark.parametrize("io_backend", BACKENDS)
def test_moves_of_the_same_pages_or_slots_follow_one_another(io_backend, codec):
    with bench(
        "page_first_direct", io_backend, codec=codec, layers=16, heads=8, head_size=128,
        page_size=64, num_pages=100, num_slots=300,
    ) as one:  # fmt: skip
        pages, *slots = (list(range(first, first + 100)) for first in (0, 0, 100, 200))
        one.kv.tensor.fill_(7)
        one.mover.backup(pages, slots[0]).wait()
        one.kv.tensor.fill_(2)
        one.mover.backup(pages, slots[1])
        one.mover.load_back(pages, slots[0])
        one.mover.backup(pages, slots[2])
        one.mover.load_back(pages, slots[1]).wait()
        assert (one.kv.tensor == 2).all()
        one.mover.load_back(pages, slots[2]).wait()
        assert (one.kv.tensor == 7).all()


@pytest.mark.parametrize("io_backend", BACKENDS)
def test_a_forward_pass_under_its_load_back_computes_what_it_does_with_the_pages_there(io_backend):
    with bench(
        "page_first_direct", io_backend, layers=6, heads=8, head_size=64, page_size=64,
        num_pages=300, num_slots=300,
    ) as one:  # fmt: skip
        torch.manual_seed(0)
        tensors = {
            name: torch.randn(shape, dtype=torch.bfloat16, device="cuda") * 0.05
            for name, shape in tensor_shapes(one.config).items()
        }
        model = Transformer(one.config, tensors, "cuda")
        pages, slots = list(range(0, 300, 2)), list(range(149, -1, -1))
        segment = Segment([*pages, 1], len(pages) * 64, 7)
        batch = make_batch([(list(range(7)), segment)], 64, "cuda")
        one.kv.tensor.mul_(0.2)
        expected = model.forward(batch, one.kv)
        one.mover.backup(pages, slots).wait()
        for _ in range(5):
            one.kv.tensor[:, :, pages] = 0
            move = one.mover.load_back(pages, slots)
            logits = model.forward(batch, one.kv, before_layer=move.before_layer)
            assert torch.equal(logits, expected)


def test_await_layer_returns_when_the_layer_is_in():
    with large() as one:
        before = one.device([5])
        one.mover.backup([5], [9])
        move = one.mover.load_back([6], [9])
        move.await_layer(31)
        assert torch.equal(one.device([6]), before)


@pytest.mark.parametrize("io_backend", BACKENDS)
def test_a_move_of_no_pages_is_done_and_waits_for_nothing(io_backend):
    with bench("page_first_direct", io_backend) as one:
        move = one.mover.load_back([], [])
        move.before_layer(2)
        move.wait()
        assert move.num_bytes == 0 and move.is_done
        one.mover.backup([], []).wait()


def test_no_move_compiles_a_kernel():
    import triton

    compiled: list[object] = []
    for layout in LAYOUTS:
        with bench(layout, "kernel", groups=2, codec="int8", num_slots=40, num_pages=40) as one:
            triton.knobs.runtime.jit_cache_hook = lambda **of: compiled.append(of)
            try:
                for count in (1, 2, 16, 33):
                    some = list(range(count))
                    one.mover.backup(some, some)
                    one.mover.load_back(some, some).wait()
            finally:
                triton.knobs.runtime.jit_cache_hook = None
    assert compiled == []


def test_memory_that_is_pinned_stays_its_first_owners_and_can_be_pinned_again_after():
    with bench("page_first", "kernel") as one:
        pin(one.host).close()
        before = one.device(PAGES)
        one.mover.backup(PAGES, SLOTS).wait()
        assert torch.equal(one.host_pages(SLOTS), before)
    again = pin(one.host)
    assert not register_host(one.host.base_address, one.host.num_bytes)
    again.close()


def test_memory_that_cannot_be_pinned_is_refused_in_words():
    class Nowhere:
        base_address = 1 << 45
        num_bytes = 1 << 30

    with pytest.raises(ConfigError, match=r"--hicache-size: 1\.1 GB"):
        pin(Nowhere())
    assert torch.ones(3, device="cuda").sum().item() == 3
