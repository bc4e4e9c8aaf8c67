"""`kvloop bench dataset`: chats that people had, held again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

from kvloop.cli import flag_types
from kvloop.cli.bench import common
from kvloop.cli.help_format import Subparsers, add_command

_DESCRIPTION = """\
Holds the chats of a file with an OpenAI-compatible server, as text. A file has one chat a line, or
all in one JSON array; each is in the form of ShareGPT (`conversations` of `from` and `value`), of
OpenAI (`messages` of `role` and `content`), or plain: `turns`, `prompt` or `question`, or a list of
strings or messages by itself."""

_EXAMPLE = """
example:
  kvloop bench dataset http://127.0.0.1:8000 --dataset sharegpt.json --limit 100 --shuffle \\
      --answers recorded --output-length recorded --max-output 64"""


def add_to(kinds: Subparsers) -> None:
    """Add `dataset` to the benchmarks."""
    parser = add_command(
        kinds,
        "dataset",
        _run,
        help="chats of a file",
        description=_DESCRIPTION,
        epilog=common.EPILOG + _EXAMPLE,
    )
    _add_flags(parser.add_argument_group("chats"))
    common.add_flags(parser)


def _add_flags(group: argparse._ArgumentGroup) -> None:
    flag, whole = group.add_argument, flag_types.positive_int
    flag("--dataset", type=Path, required=True, metavar="FILE", help="JSON lines, or an array")
    flag("--limit", type=whole, metavar="N", help="chats to hold; unset: all")
    flag("--shuffle", action="store_true", help="draw them from the whole file; else the first")
    flag("--turns", type=whole, metavar="N", help="of each chat at most")
    flag(
        "--max-message-chars",
        type=whole,
        metavar="N",
        help="longer messages and recorded answers are cut",
    )
    flag(
        "--answers",
        choices=("server", "recorded"),
        default="server",
        help="whose answers the history of later turns holds",
    )
    flag(
        "--output-length",
        type=_output_length,
        default=128,
        metavar="N",
        help="tokens of each answer, or `recorded`: as the recorded one, 4 characters a token",
    )
    flag("--max-output", type=whole, metavar="N", help="tokens of an answer at most")
    flag("--strict", action="store_true", help="end at a broken chat instead of leaving it out")


def _output_length(text: str) -> int | Literal["recorded"]:
    if text == "recorded":
        return "recorded"
    try:
        return flag_types.positive_int(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; or `recorded`") from None


def _run(args: argparse.Namespace) -> int:
    from kvloop.benchmark.workloads.dataset import DatasetOptions, load_dataset

    options = DatasetOptions(
        dataset=args.dataset,
        limit=args.limit,
        is_shuffled=args.shuffle,
        turns=args.turns,
        max_message_chars=args.max_message_chars,
        answers=args.answers,
        output_length=args.output_length,
        max_output=args.max_output,
        is_strict=args.strict,
        seed=args.seed,
    )
    # read in the run, whose reports then say what is wrong with the file
    return common.run(args, lambda _: load_dataset(options))
