# ruff: noqa: INP001
"""A soak of decode's offload: does its backlog stay bounded, and is everything free at the end?

    python scripts/soak_offload.py --minutes 10
    python scripts/soak_offload.py --minutes 10 --store slow --staging-pages 16

Chats of several turns with sampled answers, some at once all the time, each next turn as soon as
its answer has ended. Each second every decode node is asked for its backlog (pages that are full
and not yet stored), the host pages that its offload holds, free and quarantined device pages; the
kernel for its memory and files. Exit status 1 if the backlog grows (a line through the samples
after the first fifth gains more than --backlog-growth pages), is ever above what the pools hold, if
memory grows by more than --rss-growth-mib or files by more than --fd-growth, if a page or slot is
not free at the end, or if a request failed.

--store slow is a file store that takes --write-pause-s for each page: L3 is then the bottleneck.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from many_chats import Shape, hardware, many_nodes, save_tiny_chat_model
from offload_soak import Look, Soak, soak

from kvloop.benchmark.reuse.load import ChatLoad
from kvloop.benchmark.trend import Trend, trend

SUPPORT = Path(__file__).parent.parent / "tests" / "support"
TINY = "tiny"
SERIES = ("backlog", "staging", "free_pages", "quarantined", "rss_mib", "fds")
WARM_UP = 0.2
"""Share of the samples in which pools fill and code is used for the first time."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flag = parser.add_argument
    flag("--minutes", type=float, default=10.0)
    flag("--quick", action="store_true", help="half a minute")
    flag("--model", default=TINY, help="`tiny`: small and random; or as kvloop's --model")
    flag("--at-once", type=int, default=8)
    flag("--turns", type=int, default=4)
    flag("--prefills", type=int, default=1)
    flag("--decodes", type=int, default=1)
    flag("--store", choices=("file", "mooncake", "slow"), default="file")
    flag("--write-pause-s", type=float, default=0.05, help="of --store slow")
    flag("--staging-pages", type=int, default=64, help="as --offload-staging-pages")
    flag("--back-pressure", default="delay", help="as --offload-back-pressure")
    flag("--backlog-growth", type=float, default=32.0, help="pages")
    flag("--rss-growth-mib", type=float, default=64.0)
    flag("--fd-growth", type=int, default=16)
    flag("--directory", type=Path, help="where pages lie; default: /dev/shm where there is one")
    flag("--json", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.minutes = 0.5
    return args


def main() -> int:
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the nodes are stopped on the way out
    # The slow store is a module of the tests; nodes load it by name.
    os.environ["PYTHONPATH"] = f"{SUPPORT}:{os.environ.get('PYTHONPATH', '')}"
    machine, load = hardware(), ChatLoad(turns=args.turns, at_once=args.at_once)
    print(machine, flush=True)
    memory = Path("/dev/shm")
    place = args.directory or (memory if memory.is_dir() else None)
    with tempfile.TemporaryDirectory(dir=place) as directory:
        root = Path(directory)
        model = save_tiny_chat_model(root / "model") if args.model == TINY else args.model
        with many_nodes(root, model, shape_of(args), load) as loop:
            seen = soak(loop, load, args.minutes * 60)
            pools = {node.url: num_pages(node.info()) for node in loop.decodes}
    faults = report(seen, pools, args)
    if args.json:
        args.json.write_text(json.dumps(as_json(seen, machine, faults), indent=1) + "\n")
    for fault in faults:
        print(f"FAULT: {fault}")
    print("sound" if not faults else f"{len(faults)} faults")
    return 1 if faults else 0


def num_pages(info: dict[str, Any]) -> int:
    return int(info["node"]["load"]["total_pages"])


def shape_of(args: argparse.Namespace) -> Shape:
    flags = ("--offload-staging-pages", str(args.staging_pages), "--threads", "1")
    return Shape(
        prefills=args.prefills,
        decodes=args.decodes,
        store=args.store,
        write_pause_s=args.write_pause_s,
        dtype="float32" if args.model == TINY else "auto",
        prefill_flags=("--threads", "1"),
        decode_flags=(*flags, "--offload-back-pressure", args.back_pressure),
    )


def report(seen: Soak, pools: dict[str, int], args: argparse.Namespace) -> list[str]:
    """Print each node's series; what is wrong, in words."""
    print(
        f"{args.minutes:g} min, {args.at_once} at once: {seen.num_turns} turns answered, "
        f"{len(seen.failures)} failed, {seen.num_missed} pages of earlier turns computed again"
    )
    faults = [f"a request failed: {f.kind}: {f.message}" for f in seen.failures[:3]]
    for url, looks in seen.looks.items():
        trends = trends_of(looks)
        show(url, trends)
        faults += [f"{url}: {fault}" for fault in judge(looks, trends, pools[url], args)]
    return faults


def trends_of(looks: Sequence[Look]) -> dict[str, Trend]:
    under_load = looks[:-1]
    warm = under_load[int(len(under_load) * WARM_UP) :]
    at_s = [look.at_s for look in warm]
    return {name: trend(at_s, [getattr(look, name) for look in warm]) for name in SERIES}


def show(url: str, trends: dict[str, Trend]) -> None:
    print(f"{url}\n  {'':12} {'p50':>9} {'p99':>9} {'max':>9} {'slope/min':>10} {'gained':>9}")
    for name, t in trends.items():
        print(
            f"  {name:12} {t.p50:9.1f} {t.p99:9.1f} {t.max:9.1f} {t.slope_per_min:10.2f} "
            f"{t.grown:9.1f}"
        )


def judge(
    looks: Sequence[Look], trends: dict[str, Trend], pool: int, args: argparse.Namespace
) -> list[str]:
    """One node's faults."""
    faults = []
    if max(look.backlog for look in looks) > pool + args.staging_pages:
        faults.append(f"the backlog was above what the pools hold ({pool} and staging)")
    if max(look.staging for look in looks) > args.staging_pages:
        faults.append(f"more than {args.staging_pages} host pages were in use")
    for name, bound in (
        ("backlog", args.backlog_growth),
        ("rss_mib", args.rss_growth_mib),
        ("fds", args.fd_growth),
    ):
        if trends[name].grown > bound:
            faults.append(f"{name} grew by {trends[name].grown:.1f}, more than {bound:g}")
    end = looks[-1]
    left = {"backlog": end.backlog, "staging": end.staging, "quarantined": end.quarantined}
    faults += [f"{name} is {value:g} at the end, not 0" for name, value in left.items() if value]
    if end.free_pages != pool:
        faults.append(f"{end.free_pages:g} of {pool} device pages are free at the end")
    return faults


def as_json(seen: Soak, machine: str, faults: list[str]) -> dict[str, Any]:
    return {
        "hardware": machine,
        "arguments": sys.argv[1:],
        "turns": seen.num_turns,
        "missed_pages": seen.num_missed,
        "failures": [asdict(failure) for failure in seen.failures],
        "faults": faults,
        "trends": {
            url: {name: asdict(t) for name, t in trends_of(looks).items()}
            for url, looks in seen.looks.items()
        },
        "looks": {url: [asdict(look) for look in looks] for url, looks in seen.looks.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
