# ruff: noqa: INP001
"""Does the loop close? Many chats with sampled answers through several nodes, pages counted.

    python scripts/prove_loop.py                        # 200 chats, a small random model
    python scripts/prove_loop.py --model smollm2 --chats 20
    python scripts/prove_loop.py --write-policy write_back --variants l3_only
    python scripts/prove_loop.py --history both --model smollm2 --chats 8 --variants rounds

Each chat is held by a client that sends text only and waits for nothing but its answer; answers
are sampled and at least four pages long. Every later turn must find each full page of its earlier
turns: expected and found pages are printed for each turn, and the exit status is 1 if one was
computed again or a request failed. Token ids are read back for the account, and never sent.

Variants: `at once`: the next turn follows its answer at once; `rounds`: when all chats have had
theirs and all is stored, so that most pages have left L1 and L2; `l3_only`: the same, and turns 2
and on may read the shared cache alone. `--history both` holds the chats with and without the
router's memory of generated ids, in turn, and shows what drift costs.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

from many_chats import ManyNodes, Shape, hardware, many_nodes, save_tiny_chat_model, variants
from rich.console import Console

from kvloop.benchmark.reuse.account import Account, to_json
from kvloop.benchmark.reuse.load import ChatLoad
from kvloop.benchmark.reuse.tables import show
from kvloop.benchmark.sample import Failure

TINY = "tiny"
ROUNDS_OF_HISTORY = 3
"""Alternating runs of `--history both`."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flag = parser.add_argument
    flag("--model", default=TINY, help="`tiny`: small and random; or as kvloop's --model")
    flag("--chats", type=int, default=200)
    flag("--turns", type=int, default=4)
    flag("--at-once", type=int, default=8, help="requests in flight")
    flag("--answer", type=int, nargs=2, default=(64, 112), metavar=("LOW", "HIGH"))
    flag("--natural-ends", action="store_true", help="the model may end its answers")
    flag("--page-size", type=int, default=16)
    flag("--prefills", type=int, default=2)
    flag("--decodes", type=int, default=2)
    flag("--store", choices=("file", "mooncake"), default="file")
    flag("--write-policy", default="write_through", help="prefill's")
    flag("--variants", nargs="+", choices=("at once", "rounds", "l3_only"), help="default: all")
    flag("--history", choices=("on", "off", "both"), default="on")
    flag("--decode-flag", action="append", default=[], help="one more flag of the decode nodes")
    flag("--prefill-flag", action="append", default=[], help="one more flag of the prefill nodes")
    flag("--seed", type=int, default=0)
    flag("--directory", type=Path, help="where pages lie; default: /dev/shm where there is one")
    flag("--quick", action="store_true", help="ten chats")
    flag("--json", type=Path)
    return parser.parse_args()


def load_of(args: argparse.Namespace) -> ChatLoad:
    return ChatLoad(
        chats=10 if args.quick else args.chats,
        turns=args.turns,
        at_once=args.at_once,
        answer_tokens=tuple(args.answer),
        natural_ends=args.natural_ends,
        history="off" if args.history == "off" else "on",
        seed=args.seed,
    )


def shape_of(args: argparse.Namespace) -> Shape:
    return Shape(
        prefills=args.prefills,
        decodes=args.decodes,
        page_size=args.page_size,
        store=args.store,
        write_policy=args.write_policy,
        dtype="float32" if args.model == TINY else "auto",
        prefill_flags=("--threads", "1", *args.prefill_flag),
        decode_flags=("--threads", "1", *args.decode_flag),
    )


def main() -> int:
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the nodes are stopped on the way out
    console = Console(highlight=False, width=160)
    load, machine = load_of(args), hardware()
    console.print(machine)
    memory = Path("/dev/shm")
    place = args.directory or (memory if memory.is_dir() else None)
    with tempfile.TemporaryDirectory(dir=place) as directory:
        root = Path(directory)
        model = save_tiny_chat_model(root / "model") if args.model == TINY else args.model
        with many_nodes(root, model, shape_of(args), load) as loop:
            accounts = run(loop, load, args, console)
    if args.json:
        runs = [to_json(account) for account in accounts]
        result = {"hardware": machine, "arguments": sys.argv[1:], "runs": runs}
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    asked = [account for account in accounts if account.load.history == "on"]
    return 0 if asked and all(account.is_whole for account in asked) else 1


def run(
    loop: ManyNodes, load: ChatLoad, args: argparse.Namespace, console: Console
) -> list[Account]:
    accounts = []
    for name, variant in variants(load).items():
        if args.variants and name not in args.variants:
            continue
        if args.history == "both":
            accounts += compare_history(loop, name, variant, console)
        else:
            accounts.append(one_run(loop, name, variant, console))
    return accounts


def one_run(loop: ManyNodes, name: str, load: ChatLoad, console: Console) -> Account:
    done = 0

    def on_outcome(outcome: object) -> None:
        nonlocal done
        done += 1
        if done % 50 == 0 or isinstance(outcome, Failure):
            print(f"{name}: {done} of {load.chats * load.turns} turns", file=sys.stderr, flush=True)

    account = loop.hold(name, load, on_outcome)
    show(account, console)
    return account


def compare_history(loop: ManyNodes, name: str, load: ChatLoad, console: Console) -> list[Account]:
    """The same chats with and without history ids, in turn; what drift costs."""
    runs: dict[str, list[Account]] = {"on": [], "off": []}
    for number in range(ROUNDS_OF_HISTORY):
        for history in ("on", "off") if number % 2 == 0 else ("off", "on"):
            held = replace(load, history=history, seed=load.seed + number)
            runs[history].append(one_run(loop, f"{name}, history ids {history}", held, console))
    console.print(drift_line(runs["on"], runs["off"]), soft_wrap=True)
    return [*runs["on"], *runs["off"]]


def drift_line(on: Sequence[Account], off: Sequence[Account]) -> str:
    expected = sum(account.total.expected for account in off)
    missed = expected - sum(account.total.found for account in off)
    drifted, asked = (
        sum(account.total.drifted for account in off),
        sum(len(account.counts) for account in off),
    )
    ratios = [b.total.ttft_s / a.total.ttft_s for a, b in zip(on, off, strict=True)]
    each = " ".join(f"{ratio:.2f}" for ratio in ratios)
    return (
        f"without history ids: {drifted} of {asked} later prompts drifted, {missed} of {expected} "
        f"pages ({missed / max(expected, 1):.1%}) missed; median TTFT of later turns x "
        f"{statistics.median(ratios):.2f} (pairs: {each})"
    )


if __name__ == "__main__":
    sys.exit(main())
