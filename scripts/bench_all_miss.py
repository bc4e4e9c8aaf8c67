# ruff: noqa: INP001
"""What HiCache costs where nothing is ever found: CPU seconds of the prefill engine a prompt token.

    python scripts/bench_all_miss.py [--store mooncake] [--json FILE]

One loop of one prefill and one decode node. Each pair of blocks asks prompts that nobody asked
before: one block with the cache on (looked up in three tiers and found in none, copied to L2,
written to L3), one with it off (no tier is read or written), in turn first. The engine's own CPU
seconds are compared, those of all its threads, after all that was queued has been written.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import sys
import tempfile
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from faults import engine_of
from loop_client import complete
from running import Cluster, Running, drained, wait_for

CHUNK = 512
FLAGS = ("--page-size", "16", "--max-total-tokens", "8192", "--hicache-ratio", "2")


class Bench:
    """A running loop, and prompts that are never asked twice."""

    def __init__(self, cluster: Cluster, num_tokens: int, num_prompts: int) -> None:
        self._num_tokens, self._num_prompts = num_tokens, num_prompts
        self._chance = random.Random(1)
        router = cluster.router()
        self.prefill = cluster.node("prefill", *FLAGS, "--chunked-prefill-size", str(CHUNK))
        self.decode = cluster.node("decode", *FLAGS)
        for running in (self.prefill, self.decode, router):
            running.wait_ready()
        for node in (self.prefill, self.decode):
            wait_for("L3", lambda node=node: is_attached(node))
        self._url = cluster.url
        self._engine = psutil.Process(engine_of(self.prefill))

    def cpu_s(self, cache: str) -> float:
        """CPU seconds a prompt token of one block."""
        before = sum(self._engine.cpu_times()[:2])
        for _ in range(self._num_prompts):
            prompt = self._chance.choices(range(100, 40000), k=self._num_tokens)
            answer = complete(self._url, prompt, 1, cache=cache)
            assert answer.sources["computed"] == self._num_tokens
        wait_for("the drain", lambda: drained(self.prefill, self.decode), 60)
        used = sum(self._engine.cpu_times()[:2]) - before
        return used / (self._num_prompts * self._num_tokens)


def is_attached(node: Running) -> bool:
    return node.metric("kvloop_storage_state", state="attached") == 1


def interval(ratios: list[float], rounds: int = 10_000) -> tuple[float, float]:
    """95 % of the bootstrap's medians."""
    chance = random.Random(0)
    medians = sorted(
        statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(rounds)
    )
    return medians[rounds * 25 // 1000], medians[rounds * 975 // 1000]


def measure(bench: Bench, num_pairs: int) -> list[dict[str, float]]:
    """Alternating pairs, after the pools have been filled once."""
    for _ in range(3):
        bench.cpu_s("on")
    bench.cpu_s("off")
    pairs = []
    for number in range(num_pairs):
        order = ("on", "off") if number % 2 else ("off", "on")
        pair = {cache: bench.cpu_s(cache) for cache in order}
        print(f"pair {number + 1}: on {pair['on'] * 1e6:.0f} µs, off {pair['off'] * 1e6:.0f} µs")
        pairs.append(pair)
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--store", choices=("file", "mooncake"), default="file")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=1008)
    parser.add_argument("--prompts", type=int, default=6)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the nodes are stopped on the way out
    with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory), "smollm2") as cluster:
        if args.store == "file":
            cluster.file_cache()
        else:
            store = cluster.mooncake(segment_gib="2")
            wait_for("the store", lambda: "store ready" in store.log.read_text())
        pairs = measure(Bench(cluster, args.tokens, args.prompts), args.pairs)
    ratios = [pair["on"] / pair["off"] for pair in pairs]
    low, high = interval(ratios)
    overhead = statistics.median(ratios) - 1
    print(
        f"HiCache over {args.store}, all misses: {overhead:+.1%} CPU seconds a prompt token "
        f"(95 %: {low - 1:+.1%} to {high - 1:+.1%}; bar 2 %), "
        f"control {statistics.median(pair['off'] for pair in pairs) * 1e6:.0f} µs a token"
    )
    if args.json:
        args.json.write_text(
            json.dumps({"pairs": pairs, "median": overhead, "low": low - 1, "high": high - 1})
        )


if __name__ == "__main__":
    main()
