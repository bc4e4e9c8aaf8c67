"""`kvloop bench multi-turn`: conversations whose turns repeat their history."""

from __future__ import annotations

import argparse

from kvloop.cli import flag_types
from kvloop.cli.bench import common, synthetic
from kvloop.cli.bench.content import add_content_flags
from kvloop.cli.help_format import Subparsers, add_command

_DESCRIPTION = """\
Holds conversations with an OpenAI-compatible server (kvloop, vLLM, ...). Each sends its whole
history at each turn and waits for the answer before the next. They may share system prompts, and
others may leave them midway. Lengths, turns and think times are numbers, or ranges LOW:HIGH that
are drawn from anew each time."""

_EXAMPLE = """
example:
  kvloop bench multi-turn http://127.0.0.1:8000 --conversations 20 --clients 4 --turns 6 \\
      --request-length 100:300 --system-prompts 2 --branches 1 --branch-turn 3"""


def add_to(kinds: Subparsers) -> None:
    """Add `multi-turn` to the benchmarks."""
    parser = add_command(
        kinds,
        "multi-turn",
        _run,
        help="conversations whose turns repeat their history",
        description=_DESCRIPTION,
        epilog=common.EPILOG + _EXAMPLE,
    )
    _add_flags(parser.add_argument_group("conversations"))
    common.add_flags(parser)


def _add_flags(group: argparse._ArgumentGroup) -> None:
    flag, amount = group.add_argument, flag_types.amount
    flag(
        "--conversations",
        type=flag_types.positive_int,
        metavar="N",
        help="all of them, without branches; unset: as many as --clients",
    )
    flag("--turns", type=amount, default=5, metavar="N", help="turns of each")
    flag("--request-length", type=amount, default=250, metavar="N", help="new tokens a turn")
    flag("--first-length", type=amount, metavar="N", help="new tokens of the first turn instead")
    flag("--output-length", type=amount, default=32, metavar="N", help="tokens of each answer")
    flag(
        "--system-prompts",
        type=flag_types.count,
        default=0,
        metavar="N",
        help="different ones, which conversations take in turn",
    )
    flag("--system-length", type=amount, default=500, metavar="N", help="tokens of each of them")
    flag(
        "--branches",
        type=flag_types.count,
        default=0,
        metavar="N",
        help="others that leave each conversation midway, in words of their own",
    )
    flag(
        "--branch-turn",
        type=flag_types.positive_int,
        default=1,
        metavar="K",
        help="the turn after which they leave",
    )
    flag(
        "--think-s",
        type=flag_types.seconds,
        default=0.0,
        metavar="S",
        help="between an answer and the next turn: the mean of exponential times, or LOW:HIGH",
    )
    add_content_flags(group)


def _run(args: argparse.Namespace) -> int:
    from kvloop.benchmark.workloads.multi_turn import MultiTurn

    return synthetic.run(
        args,
        lambda: MultiTurn(
            num_conversations=args.conversations or args.clients,
            turns=args.turns,
            request_length=args.request_length,
            first_length=args.first_length,
            output_length=args.output_length,
            system_prompts=args.system_prompts,
            system_length=args.system_length,
            branches=args.branches,
            branch_turn=args.branch_turn,
            think_s=args.think_s,
            content=args.content,
            id_range=args.id_range,
            seed=args.seed,
        ),
        needs=[("system_length", "system_prompts"), ("branch_turn", "branches")],
    )
