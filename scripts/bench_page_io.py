#!/usr/bin/env python3
"""How fast pages go between a GPU (L1) and pinned host memory (L2), and a long history's TTFT.

Bandwidth: random pages, each layout and I/O backend, both directions, beside the control: one large
asynchronous copy of pinned memory, taken in turn with every move of the same run. The bar is 90 %.

TTFT: a history that lies in L2 is loaded back layer by layer under the forward pass of the tokens
that follow it. The bar is 1.15 x (bytes / the control's bandwidth) + the time of that forward pass
with the history in L1, all three taken in turn.

    python scripts/bench_page_io.py --out results/page_io.json
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from kvloop.engine.batch import Segment, make_batch
from kvloop.engine.cuda_sync import new_event
from kvloop.engine.kv_pool import KVPool
from kvloop.engine.model_config import ModelConfig
from kvloop.engine.node_config import IOBackend
from kvloop.engine.page_mover import PageMover, make_mover
from kvloop.engine.transformer import Transformer
from kvloop.engine.weights import tensor_shapes
from kvloop.shared_cache.hicache_names import Codec, HostLayout
from kvloop.shared_cache.host_layout import effective_layout
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape

PAGE_SIZE = 64
BAR = 0.9
TTFT_BAR = 1.15
LAYOUTS: tuple[HostLayout, ...] = ("page_first_direct", "page_first", "layer_first")
BACKENDS: tuple[IOBackend, ...] = ("kernel", "direct")
GB = 1e9


def model(layers: int, heads: int, kv_heads: int, size: int, inner: int, vocab: int) -> ModelConfig:
    return ModelConfig.from_dict(
        {
            "architectures": ["LlamaForCausalLM"],
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": size,
            "hidden_size": heads * size,
            "intermediate_size": inner,
            "vocab_size": vocab,
            "max_position_embeddings": 131072,
            "rope_theta": 500000.0,
        }
    )


MODELS = {
    "8b": model(32, 32, 8, 128, 14336, 128256),
    "smollm2": model(30, 9, 3, 64, 1536, 49152),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way of moving pages: medians over the rounds; rates in GB/s of bytes on the bus."""

    model: str
    layout: HostLayout
    io_backend: IOBackend
    codec: Codec
    pages: int
    backup: float
    load_back: float
    control_to_host: float
    control_to_device: float
    backup_share: float
    """Of the control of the same round."""
    load_back_share: float

    @property
    def is_slow(self) -> bool:
        return min(self.backup_share, self.load_back_share) < BAR


class Control:
    """One large copy between pinned memory and the device."""

    def __init__(self, num_bytes: int) -> None:
        self._host = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)
        self._device = torch.empty(num_bytes, dtype=torch.uint8, device="cuda")

    def to_host(self) -> float:
        """GB/s."""
        return self._rate(self._host, self._device)

    def to_device(self) -> float:
        """GB/s."""
        return self._rate(self._device, self._host)

    def _rate(self, target: torch.Tensor, source: torch.Tensor) -> float:
        began, ended = new_event(has_time=True), new_event(has_time=True)
        torch.cuda.synchronize()
        began.record()
        target.copy_(source, non_blocking=True)
        ended.record()
        torch.cuda.synchronize()
        return float(target.nbytes / GB / (began.elapsed_time(ended) / 1e3))


@contextmanager
def tiers(
    config: ModelConfig,
    num_pages: int,
    layout: HostLayout,
    io_backend: IOBackend,
    codec: Codec = "none",
) -> Iterator[tuple[KVPool, PageMover]]:
    """A device pool and a host pool of `num_pages` each, and the mover between them."""
    shape = PageShape(
        num_layers=config.layers,
        page_size=PAGE_SIZE,
        num_kv_heads=config.kv_heads,
        head_size=config.head_size,
        itemsize=2,
        codec=codec,
    )
    kv = KVPool(config, num_pages, PAGE_SIZE, torch.bfloat16, "cuda")
    kv.tensor.normal_()
    host = HostPool(shape, num_pages, effective_layout(layout, io_backend))
    started = time.perf_counter()
    mover = make_mover(kv, host, io_backend)
    print(f"# {host.num_bytes / GB:.1f} GB pinned in {time.perf_counter() - started:.1f} s")
    try:
        yield kv, mover
    finally:
        mover.close()


def measure(
    name: str,
    layout: HostLayout,
    io_backend: IOBackend,
    codec: Codec,
    *,
    num_bytes: int,
    rounds: int,
    control: Control,
) -> Row:
    """Median rates over `rounds`, each with random pages and slots and both controls."""
    config = MODELS[name]
    page_bytes = config.layers * 2 * PAGE_SIZE * config.kv_heads * config.head_size * 2
    count = num_bytes // page_bytes
    draw = random.Random(0)
    out, back, to_host, to_device = [], [], [], []
    with tiers(config, 2 * count, layout, io_backend, codec) as (_, mover):
        for _ in range(rounds + 1):
            pages, slots = (draw.sample(range(2 * count), count) for _ in range(2))
            to_host.append(control.to_host())
            out.append(_rate(mover.backup(pages, slots)))
            to_device.append(control.to_device())
            back.append(_rate(mover.load_back(pages, slots)))
    torch.cuda.empty_cache()
    shares = (
        [a / b for a, b in zip(*pair, strict=True)] for pair in ((out, to_host), (back, to_device))
    )
    medians = [statistics.median(one[1:]) for one in (out, back, to_host, to_device, *shares)]
    return Row(
        model=name,
        layout=layout,
        io_backend=io_backend,
        codec=codec,
        pages=count,
        backup=medians[0],
        load_back=medians[1],
        control_to_host=medians[2],
        control_to_device=medians[3],
        backup_share=medians[4],
        load_back_share=medians[5],
    )


def _rate(move: Any) -> float:
    move.wait()
    return float(move.num_bytes / GB / move.seconds)


def bandwidth(num_bytes: int, rounds: int, control: Control) -> list[Row]:
    """Every combination that is not mapped to another one."""
    cases: list[tuple[str, HostLayout, IOBackend, Codec]] = [
        (name, layout, io_backend, "none")
        for name in MODELS
        for layout in LAYOUTS
        for io_backend in BACKENDS
        if effective_layout(layout, io_backend) == layout
    ]
    cases += [("8b", "page_first_direct", io_backend, "int8") for io_backend in BACKENDS]
    rows = []
    print(f"{'model':8} {'layout':18} {'io':7} {'codec':5} backup GB/s (of control)  load-back")
    for case in cases:
        row = measure(*case, num_bytes=num_bytes, rounds=rounds, control=control)
        print(
            f"{row.model:8} {row.layout:18} {row.io_backend:7} {row.codec:5} "
            f"{row.backup:6.1f} ({row.backup_share:6.1%} of {row.control_to_host:.1f})  "
            f"{row.load_back:6.1f} ({row.load_back_share:6.1%} of {row.control_to_device:.1f})",
            flush=True,
        )
        rows.append(row)
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstToken:
    """Medians, ms."""

    layout: HostLayout
    io_backend: IOBackend
    history: int
    uncached: int
    bytes: int
    ttft: float
    compute: float
    """The uncached tokens with the history in L1."""
    bus: float
    """The history's bytes at the control's bandwidth."""

    @property
    def bound(self) -> float:
        return TTFT_BAR * self.bus + self.compute


def random_model(config: ModelConfig) -> Transformer:
    """Weights drawn on the device: only their shapes matter here."""
    tensors = {
        name: torch.full(shape, 1.0, dtype=torch.bfloat16, device="cuda")
        if name.endswith("norm.weight")
        else torch.randn(shape, dtype=torch.bfloat16, device="cuda").mul_(0.02)
        for name, shape in tensor_shapes(config).items()
    }
    return Transformer(config, tensors, "cuda")


def first_tokens(
    transformer: Transformer,
    io_backend: IOBackend,
    lengths: Sequence[tuple[int, int]],
    rounds: int,
    control: Control,
) -> list[FirstToken]:
    """For each (history, uncached tokens)."""
    layout: HostLayout = "page_first_direct"
    longest = max(-(-(history + uncached) // PAGE_SIZE) for history, uncached in lengths)
    num_pages = 2 * longest
    found = []
    with tiers(transformer.config, num_pages, layout, io_backend) as (kv, mover):
        for history, uncached in lengths:
            timed = Timed(transformer, kv, mover, history, uncached)
            ttft, compute, rates = [], [], []
            for _ in range(rounds + 2):
                rates.append(control.to_device())
                compute.append(timed.compute())
                ttft.append(timed.first_token())
            rate = statistics.median(rates[2:])
            one = FirstToken(
                layout=layout,
                io_backend=io_backend,
                history=history,
                uncached=uncached,
                bytes=timed.num_bytes,
                ttft=statistics.median(ttft[2:]),
                compute=statistics.median(compute[2:]),
                bus=timed.num_bytes / GB / rate * 1e3,
            )
            found.append(one)
            print(
                f"{io_backend:7} history {history} + {uncached}: TTFT {one.ttft:.1f} ms, bound "
                f"{one.bound:.1f} ms ({TTFT_BAR} x {one.bus:.1f} on the bus + {one.compute:.1f} "
                f"computing): {one.ttft / one.bound:.2f} of it",
                flush=True,
            )
    return found


class Timed:
    """One prompt: its history on random pages and slots, then tokens that nothing holds."""

    def __init__(
        self, transformer: Transformer, kv: KVPool, mover: PageMover, history: int, uncached: int
    ) -> None:
        self._transformer, self._kv, self._mover = transformer, kv, mover
        used = -(-(history + uncached) // PAGE_SIZE)
        draw = random.Random(history)
        pages, slots = (draw.sample(range(kv.num_pages), used) for _ in range(2))
        self._cached = pages[: history // PAGE_SIZE], slots[: history // PAGE_SIZE]
        self._item = list(range(10, 10 + uncached)), Segment(pages, history, uncached)
        move = mover.backup(*self._cached)
        move.wait()
        self.num_bytes = move.num_bytes
        self._expected = self._forward(None)

    def compute(self) -> float:
        """ms with the history in L1."""
        return self._clocked(lambda: self._forward(None))

    def first_token(self) -> float:
        """ms from the decision to load back to the first token on the host."""
        self._kv.tensor[:, :, self._cached[0]] = 0

        def run() -> torch.Tensor:
            return self._forward(self._mover.load_back(*self._cached).before_layer)

        return self._clocked(run)

    def _forward(self, before_layer: Callable[[int], None] | None) -> torch.Tensor:
        batch = make_batch([self._item], PAGE_SIZE, "cuda")
        logits = self._transformer.forward(batch, self._kv, before_layer=before_layer)
        return logits.argmax(-1).cpu()

    def _clocked(self, run: Callable[[], torch.Tensor]) -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        token = run()
        took = time.perf_counter() - began
        assert torch.equal(token, self._expected), "a loaded history answers otherwise"
        return took * 1e3


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=2.0, help="bytes a move (default 2 GB)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--skip-ttft", action="store_true")
    parser.add_argument("--out", type=Path, help="also write the numbers here, as JSON")
    return parser.parse_args()


def main() -> None:
    """Measure, print, and say which bars are not met."""
    args = arguments()
    device = torch.cuda.get_device_properties(0)
    print(f"# {device.name}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    num_bytes = int(args.gb * GB)
    control = Control(num_bytes)
    rows = bandwidth(num_bytes, args.rounds, control)
    tokens: list[FirstToken] = []
    if not args.skip_ttft:
        transformer = random_model(MODELS["8b"])
        lengths = [(16384, 512), (16384, 64), (4096, 64)]
        for io_backend in BACKENDS:
            tokens += first_tokens(transformer, io_backend, lengths, args.rounds, control)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        record = {
            "device": device.name,
            "torch": torch.__version__,
            "bandwidth": [asdict(row) for row in rows],
            "ttft": [asdict(one) | {"bound": one.bound} for one in tokens],
        }
        args.out.write_text(json.dumps(record, indent=1))
    slow = [row for row in rows if row.codec == "none" and row.is_slow]
    late = [one for one in tokens if one.ttft > one.bound]
    print(f"# below {BAR:.0%} of the control: {len(slow)} of {len(rows)} rows")
    print(f"# above the TTFT bound: {len(late)} of {len(tokens)}")


if __name__ == "__main__":
    main()
