"""`kvloop bench`: loads and what they show."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from kvloop.cli import bench_storage_command, flag_types
from kvloop.cli.help_format import HelpFormatter, Subparsers, add_command

API_KEY_VARIABLE = "KVLOOP_API_KEY"

_MULTI_TURN = """\
Holds conversations with an OpenAI-compatible server (kvloop, vLLM, ...). Each client sends its
whole history at each turn and waits for the answer before the next. Shows time to the first
token (TTFT), between tokens (ITL) and the cache's hit rate by turn, and every error."""

_EPILOG = f"""\
exit status: 0 if every request was answered, 1 if any failed, 2 if a flag is wrong

environment:
  {API_KEY_VARIABLE}   used where --api-key is not given

example:
  kvloop bench multi-turn http://127.0.0.1:8000 --clients 4 --turns 5 --json result.json"""


def add_to(commands: Subparsers) -> None:
    """Add `bench` and what is below it."""
    bench = commands.add_parser("bench", help="benchmarks", formatter_class=HelpFormatter)
    kinds = bench.add_subparsers(title="benchmarks", metavar="BENCHMARK", required=True)
    parser = add_command(
        kinds,
        "multi-turn",
        _run,
        help="conversations whose turns repeat their history",
        description=_MULTI_TURN,
        epilog=_EPILOG,
    )
    _add_server_flags(parser.add_argument_group("server"))
    _add_load_flags(parser.add_argument_group("load"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured here")
    bench_storage_command.add_to(kinds)


def _add_server_flags(group: argparse._ArgumentGroup) -> None:
    flag = group.add_argument
    flag("url", type=flag_types.url, metavar="URL", help="server, such as http://127.0.0.1:8000")
    flag("--model", metavar="NAME", help="unset: the first that the server names")
    flag("--api-key", metavar="KEY", help="sent as bearer token")
    flag("--cache-salt", metavar="TEXT", help="keeps this run's pages apart from all others")
    flag(
        "--timeout-s",
        type=flag_types.positive_float,
        default=600.0,
        metavar="S",
        help="longest time for one answer",
    )


def _add_load_flags(group: argparse._ArgumentGroup) -> None:
    flag, whole = group.add_argument, flag_types.positive_int
    flag("--clients", type=whole, default=4, metavar="N", help="conversations held at once")
    flag("--turns", type=whole, default=5, metavar="N", help="turns of each conversation")
    flag("--request-length", type=whole, default=250, metavar="N", help="new tokens a turn")
    flag("--output-length", type=whole, default=32, metavar="N", help="tokens of each answer")
    flag(
        "--rate",
        type=flag_types.positive_float,
        metavar="R",
        help="requests a second started at most, at random times; unset: no limit",
    )
    flag(
        "--max-in-flight",
        type=whole,
        metavar="N",
        help="requests at the server at once, the wait not counted in TTFT; unset: no limit",
    )
    flag("--warmup", type=flag_types.count, default=1, metavar="N", help="uncounted requests first")
    flag("--seed", type=flag_types.count, default=0, metavar="N", help="draws what clients say")
    content = group.add_mutually_exclusive_group()
    content.add_argument(
        "--token-ids",
        dest="content",
        action="store_const",
        const="token-ids",
        default="token-ids",
        help="random token ids to /v1/completions; the default",
    )
    content.add_argument(
        "--text",
        dest="content",
        action="store_const",
        const="text",
        help="random words to /v1/chat/completions",
    )
    flag(
        "--id-range",
        type=flag_types.whole_range,
        default=(1000, 20000),
        metavar="LOW:HIGH",
        help="token ids are drawn from LOW up to HIGH; unset: 1000:20000",
    )


def _run(args: argparse.Namespace) -> int:
    from kvloop.benchmark.run import BenchConfig, run_bench
    from kvloop.benchmark.workload import Workload

    workload = Workload(
        clients=args.clients,
        turns=args.turns,
        request_length=args.request_length,
        output_length=args.output_length,
        rate=args.rate,
        max_in_flight=args.max_in_flight,
        warmup=args.warmup,
        content=args.content,
        id_low=args.id_range[0],
        id_high=args.id_range[1],
        seed=args.seed,
    )
    return run_bench(
        BenchConfig(
            url=args.url,
            workload=workload,
            model=args.model,
            api_key=args.api_key or os.environ.get(API_KEY_VARIABLE) or None,
            cache_salt=args.cache_salt,
            timeout_s=args.timeout_s,
            json_file=args.json,
        )
    )
