# ruff: noqa: INP001
"""What a page costs prefill's CPU on its way to L3, step by step, in µs a prompt token.

    python scripts/bench_page_cpu.py [--root DIR] [--model smollm2]

Pages of 16 tokens in bfloat16. Each step runs alone, on one thread but for the file backend's own
four, and its least CPU time of some runs is shown: what else the machine does is not meant. The
sum, beside what computing a token costs (scripts/bench_all_miss.py shows it), is what HiCache adds
where nothing is found.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from kvloop.engine.cpu_mover import CpuMover
from kvloop.engine.kv_pool import KVPool
from kvloop.engine.model_config import ModelConfig
from kvloop.engine.model_files import resolve_model
from kvloop.shared_cache.backends.file.backend import FileBackend, FileConfig
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.page_object import PageShape, seal
from kvloop.shared_cache.tree import RadixTree
from kvloop.shared_cache.tree_node import Tier

PAGE = 16
PROMPT = 63
"""Pages: about a thousand tokens."""
NUM_PROMPTS = 8
NAMESPACE = b"n" * 32


class Steps:
    """Some prompts' pages in real pools, and each thing that is done to them."""

    def __init__(self, config: ModelConfig, root: Path) -> None:
        num_pages = PROMPT * NUM_PROMPTS
        self._shape = PageShape(
            num_layers=config.layers,
            page_size=PAGE,
            num_kv_heads=config.kv_heads,
            head_size=config.head_size,
            itemsize=torch.bfloat16.itemsize,
        )
        self._host = HostPool(self._shape, num_pages)
        self._mover = CpuMover(KVPool(config, num_pages, PAGE, torch.bfloat16), self._host)
        self._keys = [hashlib.sha256(n.to_bytes(4, "little")).digest() for n in range(num_pages)]
        self._runs = [range(at, at + PROMPT) for at in range(0, num_pages, PROMPT)]
        self._roots = (root / str(n) for n in itertools.count())

    def keys(self) -> None:
        for _ in self._runs:
            page_keys(range(PROMPT * PAGE), PAGE, None)

    def tree(self) -> None:
        tree = RadixTree()
        for run in self._runs:
            keys = self._keys[run.start : run.stop]
            tree.find(keys)
            for tier in (Tier.DEVICE, Tier.HOST):
                tree.insert(tier, keys, run)
            tree.lock(keys)
            tree.assign(Tier.STORAGE, keys, range(PROMPT), [1] * PROMPT)
            tree.unlock(keys)

    def backup(self) -> None:
        for run in self._runs:
            self._mover.backup(run, run).wait()

    def seal(self) -> None:
        for slot, key in enumerate(self._keys):
            seal(self._host.group_view(slot, 0), self._shape, key, NAMESPACE, 0, "prefill")

    def write(self) -> None:
        backend = FileBackend(FileConfig(root=str(next(self._roots))), self._host, NAMESPACE)
        for run in self._runs:
            assert all(backend.set(self._keys[run.start : run.stop], run))
        backend.close()


def cpu_us_per_token(step: Callable[[], None], rounds: int = 5) -> float:
    """The process's, all threads together; the least of some rounds after one to warm up."""
    step()
    times = []
    for _ in range(rounds):
        began_at = time.process_time()
        step()
        times.append(time.process_time() - began_at)
    return min(times) / (PROMPT * NUM_PROMPTS * PAGE) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="directory to write under (default: a new one)")
    parser.add_argument("--model", default="smollm2")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = ModelConfig.from_dir(resolve_model(args.model, "bfloat16").directory)
    with tempfile.TemporaryDirectory(dir=args.root) as root:
        steps = Steps(config, Path(root))
        named = {
            "page keys (sha256)": steps.keys,
            "tree": steps.tree,
            "backup to L2": steps.backup,
            "seal (xxh3)": steps.seal,
            "write to L3 (file)": steps.write,
        }
        costs = {name: cpu_us_per_token(step) for name, step in named.items()}
    for name, cost in (*costs.items(), ("all", sum(costs.values()))):
        print(f"{name:20} {cost:7.2f} µs a token")


if __name__ == "__main__":
    main()
