# ruff: noqa: INP001
"""What a stall of L3 does to the time to the first token, by prefetch policy, beside its absence.

    python scripts/bench_stalled_backend.py [--policy P] [--episodes 8] [--json FILE]

One loop of one prefill and one decode node over a backend whose calls can be told to stall, for
five seconds each. An episode lets the backend work, or stall from now on, and asks four prompts,
one after the other: two that L3 alone holds, two that nobody has asked before. Episodes with and
without the stall take turns; prompts with the cache off, asked between them, are what computing
costs. The node gives L3 three seconds a call, then leaves it alone until it answers again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from hicache_loop import ids_of, is_in_state, set_policies, use_stalling
from loop import flush
from loop_client import complete
from running import Cluster, drained, wait_for
from stalling_backend import Hand

from kvloop.benchmark.results.stats import percentile
from kvloop.shared_cache.hicache_names import PrefetchPolicy

POLICIES: tuple[PrefetchPolicy, ...] = ("best_effort", "timeout", "wait_complete")
TIMEOUT = {"base": 0.3, "per_ki_token": 0.25, "cap": 2.0}
FLAGS = (
    *("--page-size", "16", "--max-total-tokens", "16384"),
    *("--hicache-prefetch-timeout-base", str(TIMEOUT["base"])),
    *("--hicache-prefetch-timeout-per-ki-token", str(TIMEOUT["per_ki_token"])),
    *("--hicache-prefetch-cap-s", str(TIMEOUT["cap"])),
)
Times = dict[str, list[float]]


class Bench:
    """A running loop, a hand on its L3, and prompts of one length."""

    def __init__(self, cluster: Cluster, num_tokens: int) -> None:
        self.num_tokens = num_tokens
        self.hand = Hand(cluster.directory / "l3")
        router = cluster.router()
        self.nodes = [cluster.node(role, *FLAGS) for role in ("prefill", "decode")]
        for running in (*self.nodes, router):
            running.wait_ready()
        self.wait_attached()
        self._url = cluster.url
        self._seeds = count()

    def wait_attached(self) -> None:
        """L3 works again."""
        for node in self.nodes:
            wait_for("L3", lambda node=node: is_in_state(node, "attached"), 120)

    def new_prompts(self) -> Iterator[list[int]]:
        """Never the same."""
        for seed in self._seeds:
            yield ids_of(self.num_tokens, seed)

    def ttft_s(self, prompt: Sequence[int], cache: str = "on") -> tuple[float, int]:
        """Seconds to the first and only token, and the tokens that L3 gave."""
        started = time.monotonic()
        answer = complete(self._url, prompt, 1, cache=cache)
        return time.monotonic() - started, answer.sources["storage"]

    def store(self, prompts: Sequence[Sequence[int]]) -> None:
        """Bring them to L3, and leave them nowhere else."""
        for prompt in prompts:
            self.ttft_s(prompt)
        wait_for("the drain", lambda: drained(*self.nodes), 120)
        for node in self.nodes:
            flush(node)

    def episode(self, known: Sequence[Sequence[int]], is_stalled: bool, times: Times) -> None:
        """Four prompts; the state of L3 as wanted."""
        fresh, where = self.new_prompts(), "stalled" if is_stalled else "working"
        times["computed, cache off"].append(self.ttft_s(next(fresh), "off")[0])
        if is_stalled:
            self.hand.hold("exists", "get", "set", "open")
        for prompt in known:
            seconds, found = self.ttft_s(prompt)
            assert not (is_stalled and found), "it did not stall"
            times[f"in L3, {where}"].append(seconds)
            times[f"new, {where}"].append(self.ttft_s(next(fresh))[0])
        self.hand.release()
        self.wait_attached()
        wait_for("the drain", lambda: drained(*self.nodes), 120)
        for node in self.nodes:
            flush(node)


def measure(bench: Bench, policy: PrefetchPolicy, num_episodes: int) -> Times:
    """Alternating episodes under one policy."""
    set_policies(bench.nodes[0], "write_through", policy)
    fresh = bench.new_prompts()
    known = [[next(fresh) for _ in range(2)] for _ in range(2 * num_episodes)]
    bench.store([prompt for pair in known for prompt in pair])
    times: Times = defaultdict(list)
    for number, pair in enumerate(known):
        bench.episode(pair, number % 2 == 1, times)
    return times


def allowed_s(policy: str, num_tokens: int) -> float:
    """What the policy may add to computing."""
    if policy == "wait_complete":
        return TIMEOUT["cap"]
    return TIMEOUT["base"] + TIMEOUT["per_ki_token"] * num_tokens / 1024


def show(policy: str, times: Times, num_tokens: int) -> None:
    """A table of milliseconds."""
    print(f"\n{policy}: may add {1000 * allowed_s(policy, num_tokens):.0f} ms")
    for what, seconds in times.items():
        ordered = sorted(seconds)
        p50, p99 = (1000 * percentile(ordered, share) for share in (0.5, 0.99))
        print(f"  {what:22} n={len(ordered):3}  p50 {p50:6.0f} ms  p99 {p99:6.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=8, help="of each kind, by policy")
    parser.add_argument("--policy", choices=POLICIES, help="one alone (default: each)")
    parser.add_argument("--tokens", type=int, default=512, help="of a prompt")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ["PYTHONPATH"] = sys.path[0]  # the nodes' way to the backend
    results = {}
    with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory), args.model) as loop:
        use_stalling(loop, {})
        bench = Bench(loop, args.tokens)
        for policy in (args.policy,) if args.policy else POLICIES:
            results[policy] = measure(bench, policy, args.episodes)
            show(policy, results[policy], args.tokens)
    if args.json:
        args.json.write_text(json.dumps(results))


if __name__ == "__main__":
    main()
