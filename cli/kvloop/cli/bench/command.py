"""`kvloop bench`: loads and what they show."""

from __future__ import annotations

from kvloop.cli.bench import (
    agent,
    compare,
    dataset,
    long_doc,
    multi_turn,
    page,
    simulate,
    storage,
    trace,
)
from kvloop.cli.help_format import HelpFormatter, Subparsers

_KINDS = (multi_turn, trace, dataset, long_doc, agent, compare, page, simulate, storage)


def add_to(commands: Subparsers) -> None:
    """Add `bench` and what is below it."""
    bench = commands.add_parser("bench", help="benchmarks", formatter_class=HelpFormatter)
    kinds = bench.add_subparsers(title="benchmarks", metavar="BENCHMARK", required=True)
    for module in _KINDS:
        module.add_to(kinds)
