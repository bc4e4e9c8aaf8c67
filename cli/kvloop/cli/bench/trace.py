"""`kvloop bench trace`: requests of a trace, when they came and with the prefixes they shared."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kvloop.cli import flag_types
from kvloop.cli.bench import common
from kvloop.cli.bench.content import add_content_flags, check_content
from kvloop.cli.help_format import Subparsers, add_command
from kvloop.shared_cache.errors import ConfigError

if TYPE_CHECKING:
    from kvloop.benchmark.driver.api import ServedModel
    from kvloop.benchmark.workloads.plan import Workload
    from kvloop.benchmark.workloads.trace import TraceOptions

_MIN_REUSE = 0.35

_DESCRIPTION = """\
Replays a Mooncake-style trace against an OpenAI-compatible server: JSON lines of `timestamp` (ms),
`input_length`, `output_length` and `hash_ids`, an id for each 512 tokens. Prompts are drawn so that
they share exactly the prefixes that the ids say. All lengths are scaled by one factor, so that the
longest request fits the model's context. Requests with a common prefix (beyond what most requests
share) are one conversation: they are sent in order. All conversations are held at once, unless
--clients says how many."""

_EXAMPLE = """
example:
  kvloop bench trace http://127.0.0.1:8000 --trace conversation_trace.jsonl --limit 300 \\
      --longest 16000 --max-output 32 --time-scale 4"""


def add_to(kinds: Subparsers) -> None:
    """Add `trace` to the benchmarks."""
    parser = add_command(
        kinds,
        "trace",
        _run,
        help="the requests of a trace, in time",
        description=_DESCRIPTION,
        epilog=common.EPILOG + _EXAMPLE,
    )
    _add_flags(parser.add_argument_group("trace"))
    common.add_flags(parser)
    # requests are due when the trace says, however many conversations that takes
    parser.set_defaults(clients=None)


def _add_flags(group: argparse._ArgumentGroup) -> None:
    flag, whole = group.add_argument, flag_types.positive_int
    flag("--trace", type=Path, required=True, metavar="FILE", help="JSON lines")
    flag("--limit", type=whole, metavar="N", help="requests to send; unset: all")
    flag(
        "--choose",
        choices=("conversation", "first"),
        default="conversation",
        help="which of them: whole conversations drawn from the trace, or the first",
    )
    flag(
        "--min-reuse",
        type=flag_types.not_negative_float,
        default=_MIN_REUSE,
        metavar="SHARE",
        help="of the ids of the conversations that --limit draws, how many come again at least",
    )
    flag(
        "--longest",
        type=whole,
        metavar="TOKENS",
        help="leaves out conversations with a longer prompt, by the trace's count",
    )
    flag(
        "--time-scale",
        type=flag_types.positive_float,
        default=1.0,
        metavar="X",
        help="2: twice as fast; not with --rate",
    )
    flag(
        "--context",
        type=whole,
        metavar="TOKENS",
        help="that the model takes, answer included; unset: as the server says",
    )
    flag("--block-tokens", type=whole, metavar="N", help="for each id; unset: as many as fit")
    flag("--max-output", type=whole, metavar="N", help="tokens of an answer at most, after scaling")
    flag("--strict", action="store_true", help="end at a broken line instead of leaving it out")
    add_content_flags(group)


def _run(args: argparse.Namespace) -> int:
    from kvloop.benchmark.workloads.trace import load_trace

    with common.refusals_told(args):
        options = _options(args)

    def load(model: ServedModel) -> Workload:
        return load_trace(replace(options, context=options.context or model.context))

    return common.run(args, load)


def _options(args: argparse.Namespace) -> TraceOptions:
    from kvloop.benchmark.workloads.trace import TraceOptions

    check_content(args)
    options = TraceOptions(
        trace=args.trace,
        limit=args.limit,
        choose=args.choose,
        min_reuse=args.min_reuse,
        longest=args.longest,
        time_scale=args.time_scale,
        context=args.context,
        block_tokens=args.block_tokens,
        max_output=args.max_output,
        is_strict=args.strict,
        content=args.content,
        id_range=args.id_range,
        seed=args.seed,
    )
    if args.rates and args.time_scale != 1:
        raise ConfigError("--time-scale changes nothing with --rate: leave one of the two out")
    if args.min_reuse != _MIN_REUSE and not options.draws:
        raise ConfigError("--min-reuse counts where --limit N draws conversations: it needs that")
    return options
