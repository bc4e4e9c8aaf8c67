"""`kvloop bench long-doc`: several questions about each of some long documents."""

from __future__ import annotations

import argparse

from kvloop.cli import flag_types
from kvloop.cli.bench import common, synthetic
from kvloop.cli.bench.content import add_content_flags
from kvloop.cli.help_format import Subparsers, add_command

_DESCRIPTION = """\
Asks an OpenAI-compatible server several questions about each of some long documents: in one
conversation for each document, or each question apart, in a prompt that begins with the document.
Lengths and think times are numbers, or ranges LOW:HIGH that are drawn from anew each time."""

_EXAMPLE = """
example:
  kvloop bench long-doc http://127.0.0.1:8000 --documents 8 --document-length 3000:6000 \\
      --questions 5 --apart"""


def add_to(kinds: Subparsers) -> None:
    """Add `long-doc` to the benchmarks."""
    parser = add_command(
        kinds,
        "long-doc",
        _run,
        help="several questions about each of some long documents",
        description=_DESCRIPTION,
        epilog=common.EPILOG + _EXAMPLE,
    )
    _add_flags(parser.add_argument_group("documents"))
    common.add_flags(parser)


def _add_flags(group: argparse._ArgumentGroup) -> None:
    flag, whole, amount = group.add_argument, flag_types.positive_int, flag_types.amount
    flag("--documents", type=whole, default=4, metavar="N", help="different ones")
    flag("--document-length", type=amount, default=2000, metavar="N", help="tokens of each")
    flag("--questions", type=whole, default=4, metavar="N", help="about each document")
    flag("--question-length", type=amount, default=30, metavar="N", help="tokens of each")
    flag("--output-length", type=amount, default=64, metavar="N", help="tokens of each answer")
    flag(
        "--apart",
        dest="asked",
        action="store_const",
        const="apart",
        default="together",
        help="each question is a conversation of its own, the document before it",
    )
    flag(
        "--think-s",
        type=flag_types.seconds,
        default=0.0,
        metavar="S",
        help="between an answer and the next question: the mean of exponential times, or LOW:HIGH",
    )
    add_content_flags(group)


def _run(args: argparse.Namespace) -> int:
    from kvloop.benchmark.workloads.long_doc import LongDocument

    return synthetic.run(
        args,
        lambda: LongDocument(
            documents=args.documents,
            document_length=args.document_length,
            questions=args.questions,
            question_length=args.question_length,
            output_length=args.output_length,
            asked=args.asked,
            think_s=args.think_s,
            content=args.content,
            id_range=args.id_range,
            seed=args.seed,
        ),
    )
