"""`python -m kvloop.benchmark.replay`: replay a trace against the cache without a model."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Literal, TypeVar, get_args

from rich.console import Console

from kvloop.benchmark.replay.report import table, to_json
from kvloop.benchmark.replay.run import ReplayConfig, replay
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.hicache_names import EvictionPolicy, WritePolicy

N = TypeVar("N", EvictionPolicy, WritePolicy)

_WIDTH = 160
"""Where there is no terminal to fit."""

_DESCRIPTION = """\
Replays the requests of a trace against the real radix tree and page pools, each id of the trace a
page, and beside them against a simple reference of the same policies. Shows each tier's share of
the prompt tokens, the cache's own CPU time for a request, and whether both are equal."""

_EPILOG = """\
exit status: 0 if all is equal to the reference, 1 if not, 2 if a flag is wrong

example:
  python -m kvloop.benchmark.replay --trace conversation_trace.jsonl --policy all"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; its exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    config = ReplayConfig(
        trace=args.trace,
        l1_share=args.l1_share,
        l2_share=args.l2_share,
        policies=_chosen(args.policy, get_args(EvictionPolicy)),
        write_policies=_chosen(args.write_policy, get_args(WritePolicy)),
        threshold=args.threshold,
        skip=args.skip,
        limit=args.limit,
    )
    try:
        sizes, replayed = replay(config)
    except ConfigError as error:
        parser.error(str(error))
    outcomes = list(replayed)
    Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH).print(
        table(sizes, outcomes)
    )
    if args.json is not None:
        args.json.write_text(json.dumps(to_json(sizes, outcomes), indent=1) + "\n")
    return 0 if all(outcome.is_equal for outcome in outcomes) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kvloop.benchmark.replay",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    flag = parser.add_argument
    flag("--trace", type=Path, required=True, metavar="FILE", help="lines with `hash_ids`")
    flag("--l1-share", type=_share, default=0.1, metavar="S", help="of the working set; 0.1")
    flag("--l2-share", type=_share, default=0.5, metavar="S", help="of the working set; 0.5")
    flag("--policy", choices=[*get_args(EvictionPolicy), "all"], default="lru")
    flag("--write-policy", choices=[*get_args(WritePolicy), "all"], default="write_through")
    flag("--threshold", type=_count, default=2, metavar="USES", help="of write_through_selective")
    flag("--skip", type=_count, default=0, metavar="N", help="requests to leave out first")
    flag("--limit", type=_count, metavar="N", help="requests to replay; unset: all")
    flag("--json", type=Path, metavar="FILE", help="write everything measured here")
    return parser


def _chosen(name: N | Literal["all"], names: tuple[N, ...]) -> tuple[N, ...]:
    return names if name == "all" else (name,)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text!r}")
    return value


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or above, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
