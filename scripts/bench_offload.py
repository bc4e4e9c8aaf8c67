# ruff: noqa: INP001
"""What decode's offload costs decode: alternating blocks with it and without it.

    python scripts/bench_offload.py                     # SmolLM2 on the CPU: 1, 8, 32 at once
    python scripts/bench_offload.py --quick             # a small check run
    python scripts/bench_offload.py --device cuda --shape 1b --page-size 64 --control cache_off \\
        --pairs 16 --tokens 512 --quiet-s 0.5

One prefill node with a shared cache, and two decode nodes: one with it (on), one that never had any
(off); each has a router of its own. In each pair of blocks both get the same requests (fixed
lengths, greedy, the model's end ignored, under a salt of their own: nothing is ever found), in turn
first. Before each pair both decode nodes are started anew, as two processes differ by their
memory's layout. What is compared:

CPU   seconds of the decode engine for each token that it generated, all threads together (the
      writer's, checksums and the backend's client with them), and of its loop thread alone. A block
      ends when all is stored; both arms wait equally long
ITL   mean time between tokens, at the client
rate  seconds a token, from the first request to the last token

On the CPU the bar is on CPU seconds: offload's own threads have a core of their own or take turns
with computing, and both are paid for. On a GPU it is on ITL, plainly.
--control cache_off asks one node for both arms, once with `"kvloop": {"cache": "off"}`: the decode
node's radix cache and prefill's tiers have nothing to do then, either.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from many_chats import hardware
from offload_bench import Block, OffloadBench
from running import Cluster, wait_for
from shapes import SHAPES, save_shape

from kvloop.benchmark.paired import Overhead, alternating, overhead

BAR = 0.02
COSTS = {"CPU": "cpu_us", "loop thread's CPU": "loop_us", "ITL": "itl_ms", "rate": "token_ms"}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flag = parser.add_argument
    flag("--model", default="smollm2", help="as kvloop's --model")
    flag("--shape", choices=sorted(SHAPES), help="instead: random weights of this shape")
    flag("--device", choices=("cpu", "cuda"), default="cpu")
    flag("--store", choices=("mooncake", "file"), default="mooncake")
    flag("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    flag("--pairs", type=int, default=8)
    flag("--prompt", type=int, default=64, help="tokens")
    flag("--answer", type=int, default=128, help="tokens")
    flag("--tokens", type=int, default=1024, help="in a block of one; of n: times the root of n")
    flag("--page-size", type=int, default=16)
    flag("--control", choices=("no_backend", "cache_off"), default="no_backend")
    flag("--restart-every", type=int, default=1, help="pairs; 0: never")
    flag("--segment-gib", default="4", help="of the Mooncake store")
    flag("--node-flag", action="append", default=[], help="one more flag of both nodes")
    flag("--decode-flag", action="append", default=[], help="one more flag of the decode node")
    flag("--directory", type=Path, help="where files lie; default: /dev/shm where there is one")
    flag("--quiet-s", type=float, default=2.5, help="how long both arms wait after the last token")
    flag("--quick", action="store_true", help="two pairs of small blocks")
    flag("--json", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.pairs, args.tokens, args.answer = 2, 256, 2 * args.page_size
    args.rounds = {
        number: max(1, round(args.tokens * number**0.5 / args.answer / number))
        for number in args.concurrency
    }
    # twice what runs at once: the rest is what the radix cache keeps
    longest = -(-(args.prompt + args.answer + 1) // args.page_size) * args.page_size
    args.pool_tokens = 2 * longest * max(*args.concurrency, 2)
    return args


def main() -> None:
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the nodes are stopped on the way out
    machine = hardware() + (f", {gpu()}" if args.device == "cuda" else "")
    print(machine, flush=True)
    memory = Path("/dev/shm")
    place = args.directory or (memory if memory.is_dir() else None)
    with tempfile.TemporaryDirectory(dir=place) as directory:
        results = run(args, Path(directory))
    if args.json:
        result = {"hardware": machine, "arguments": sys.argv[1:], "concurrency": results}
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def gpu() -> str:
    """The first one's name."""
    import torch

    return torch.cuda.get_device_name(0)


def run(args: argparse.Namespace, directory: Path) -> list[dict[str, Any]]:
    model, flags = args.model, ["--device", args.device]
    if args.shape:
        model = save_shape(args.shape, directory / "model")
        flags += ["--load-format", "dummy"]
    other = directory / "off"
    other.mkdir()
    with Cluster(directory, model, *flags) as on, Cluster(other, model, *flags) as off:
        if args.store == "mooncake":
            store = on.mooncake(segment_gib=args.segment_gib)
            wait_for("the store", lambda: "store ready" in store.log.read_text())
        else:
            on.file_cache()
        return measure(OffloadBench(on, off, args), args)


def measure(bench: OffloadBench, args: argparse.Namespace) -> list[dict[str, Any]]:
    """All pairs at every concurrency."""
    arms: dict[int, dict[str, list[Block]]] = {
        concurrency: {"on": [], "off": []} for concurrency in args.concurrency
    }
    for number, order in enumerate(alternating("off", "on", args.pairs)):
        if number and args.restart_every and number % args.restart_every == 0:
            bench.restart()
        for concurrency, blocks in arms.items():
            try:
                pair = {arm: bench.block(arm, concurrency, number) for arm in order}
            except SystemExit:  # told to stop: what was measured is judged
                return judge_all(arms, args.device)
            for arm, block in pair.items():
                blocks[arm].append(block)
            tell(number + 1, concurrency, pair["on"], pair["off"])
    return judge_all(arms, args.device)


def judge_all(arms: dict[int, dict[str, list[Block]]], device: str) -> list[dict[str, Any]]:
    return [judge(number, blocks, device) for number, blocks in arms.items() if blocks["on"]]


def tell(pair: int, concurrency: int, on: Block, off: Block) -> None:
    columns = (
        ("CPU µs a token", on.cpu_us, off.cpu_us),
        ("loop", on.loop_us, off.loop_us),
        ("ITL ms", on.itl_ms, off.itl_ms),
        ("tokens/s", on.tokens_per_s, off.tokens_per_s),
        ("pages stored", on.stored_pages, off.stored_pages),
    )
    cells = "; ".join(f"{name} {one:.5g} / {other:.5g}" for name, one, other in columns)
    print(f"pair {pair}, {concurrency} at once, on / off: {cells}", flush=True)


def judge(concurrency: int, arms: dict[str, list[Block]], device: str) -> dict[str, Any]:
    check_arms(arms)
    costs = {
        name: overhead(*([getattr(b, field) for b in arms[arm]] for arm in ("on", "off")))
        for name, field in COSTS.items()
    }
    show(concurrency, arms, costs, device)
    return {
        "concurrency": concurrency,
        "blocks": {arm: [asdict(block) for block in blocks] for arm, blocks in arms.items()},
        "overhead": {name: asdict(cost) for name, cost in costs.items()},
    }


def check_arms(arms: dict[str, list[Block]]) -> None:
    """An arm that did not do what its name says proves nothing."""
    if any(not block.stored_pages for block in arms["on"]):
        sys.exit("a block with offload on stored no page")
    if any(block.stored_pages for block in arms["off"]):
        sys.exit("a block with offload off stored pages")


def show(
    concurrency: int, arms: dict[str, list[Block]], costs: dict[str, Overhead], device: str
) -> None:
    added = statistics.median(
        on.cpu_us - off.cpu_us for on, off in zip(arms["on"], arms["off"], strict=True)
    )
    print(f"{concurrency} at once: offload adds {added:+.0f} µs of CPU a token")
    judged = "ITL" if device == "cuda" else "CPU"
    for name, cost in costs.items():
        words = cost.verdict(BAR, plainly=device == "cuda")
        print(f"  {name:18} {words if name == judged else words.partition('; bar')[0] + ')'}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
