"""`kvloop bench compare`: two reports side by side, and an exit status for CI."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvloop.cli import flag_types
from kvloop.cli.help_format import Subparsers, add_command

_DESCRIPTION = """\
Compares two reports that `kvloop bench ... --json` wrote, B against A: ratios of times and rates,
differences of shares, each with a 95 % interval by bootstrap over conversations. Regressions are
named. Where both runs had the same load, intervals are of pairs of conversations."""

_EPILOG = """\
A regression: all of the interval is worse than the tolerance. With --tolerance 0: than no change.

exit status: 0 if nothing regressed, 1 if something did, 2 if the files or flags are wrong

examples:
  kvloop bench compare before.json after.json
  kvloop bench compare kvloop.json vllm.json --arm on --metric 'ttft_p99*=0.2'"""


def add_to(kinds: Subparsers) -> None:
    """Add `compare`."""
    parser = add_command(
        kinds,
        "compare",
        _run,
        help="two reports side by side",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    flag = parser.add_argument
    flag("a", type=Path, metavar="A.json", help="the report to compare with")
    flag("b", type=Path, metavar="B.json", help="the report that is judged")
    flag("--arm", action="append", default=[], metavar="ARM", help="only this; may be repeated")
    flag(
        "--tolerance",
        type=flag_types.not_negative_float,
        default=0.05,
        metavar="SHARE",
        help="how much worse is no regression; of shares in points",
    )
    flag(
        "--metric",
        action="append",
        type=_rule,
        default=[],
        metavar="NAME=SHARE",
        help="another tolerance for metrics of this name (* fits anything; inf: never judged)",
    )
    flag("--names", type=_names, metavar="A,B", help="heads of the columns; unset: the servers'")
    flag(
        "--different-load",
        action="store_true",
        help="compare although the runs' loads differ; intervals are then not of pairs",
    )
    flag("--json", type=Path, metavar="FILE", help="write the comparison here")


def _rule(text: str) -> tuple[str, float]:
    name, equals, value = text.rpartition("=")
    try:
        tolerance = float(value)
    except ValueError:
        tolerance = -1.0
    if not (name and equals and tolerance >= 0):
        raise argparse.ArgumentTypeError(f"must be NAME=SHARE such as ttft_p99=0.1, got {text!r}")
    return name, tolerance


def _names(text: str) -> tuple[str, str]:
    first, _, second = text.partition(",")
    if not (first and second) or "," in second:
        raise argparse.ArgumentTypeError(f"must be two names such as kvloop,vllm, got {text!r}")
    return first, second


def _run(args: argparse.Namespace) -> int:
    from kvloop.benchmark.compare.run import CompareConfig, run_compare
    from kvloop.benchmark.terminal import new_console

    config = CompareConfig(
        a=args.a,
        b=args.b,
        arms=tuple(args.arm),
        tolerance=args.tolerance,
        rules=tuple(args.metric),
        names=args.names,
        allow_different_load=args.different_load,
        json_file=args.json,
    )
    return run_compare(config, new_console())
