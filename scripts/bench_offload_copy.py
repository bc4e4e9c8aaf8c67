# ruff: noqa: INP001
"""What handing one full page over costs decode's loop on a CPU: a copy in the loop, or on a thread.

    python scripts/bench_offload_copy.py

Pages of SmolLM2-135M's shape; median microseconds a page in the loop's own thread.
"""

from __future__ import annotations

import time
from statistics import median
from types import SimpleNamespace
from typing import Any, cast

import torch

from kvloop.decode.offload.staging import ThreadedBackup
from kvloop.engine.cpu_mover import CpuMover
from kvloop.engine.kv_pool import KVPool
from kvloop.shared_cache.hicache_names import Codec
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.page_object import PageShape

LAYERS, HEADS, SIZE = 30, 3, 64
NUM_PAGES, NUM_SLOTS, ROUNDS = 256, 64, 200


def measure(page_size: int, codec: Codec) -> tuple[float, float]:
    """Seconds in the loop: of a copy there, and of a copy handed to the thread."""
    shape = PageShape(
        num_layers=LAYERS,
        page_size=page_size,
        num_kv_heads=HEADS,
        head_size=SIZE,
        itemsize=2,
        codec=codec,
    )
    host = HostPool(shape, NUM_SLOTS)
    model = cast(Any, SimpleNamespace(layers=LAYERS, kv_heads=HEADS, head_size=SIZE))
    kv = KVPool(model, NUM_PAGES, page_size, torch.float16, torch.device("cpu"))
    kv.tensor.normal_()
    mover = CpuMover(kv, host)
    mover.backup(list(range(NUM_SLOTS)), list(range(NUM_SLOTS)))
    threaded = ThreadedBackup(mover)
    here, there = [], []
    for index in range(ROUNDS):
        page, slot = [index % NUM_PAGES], [index % NUM_SLOTS]
        started = time.perf_counter()
        mover.backup(page, slot)
        here.append(time.perf_counter() - started)
        started = time.perf_counter()
        move = threaded.backup(page, slot)
        there.append(time.perf_counter() - started)
        while not move.is_done:
            time.sleep(0.0005)
    threaded.stop()
    mover.close()
    return median(here), median(there)


def main() -> None:
    torch.set_num_threads(1)
    print("tokens  codec  in the loop  on a thread")
    cases: tuple[tuple[int, Codec], ...] = ((16, "none"), (64, "none"), (16, "int8"), (64, "int8"))
    for page_size, codec in cases:
        here, there = measure(page_size, codec)
        print(f"{page_size:6}  {codec:5}  {here * 1e6:8.0f} us  {there * 1e6:8.0f} us")


if __name__ == "__main__":
    main()
