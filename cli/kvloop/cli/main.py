"""The `kvloop` command: one parser, each command imported only when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import cast

from kvloop.cli import (
    cache_command,
    canary_command,
    nixl_store_command,
    node_command,
    router_command,
    store_command,
    up_command,
)
from kvloop.cli.bench import command as bench_command
from kvloop.cli.help_format import Command, HelpFormatter
from kvloop.cli.install import command as install_command
from kvloop.shared_cache.errors import ConfigError, KVLoopError

_COMMANDS = (
    up_command,
    node_command,
    router_command,
    store_command,
    nixl_store_command,
    cache_command,
    canary_command,
    bench_command,
    install_command,
)
_DESCRIPTION = """\
Serves chat models with prefill and decode on separate nodes that share one KV cache.

  kvloop up --model smollm2      everything on this machine, and a chat that shows the reuse
  kvloop COMMAND --help          the flags of one part"""


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; building it imports no model code."""
    parser = argparse.ArgumentParser(
        "kvloop", description=_DESCRIPTION, formatter_class=HelpFormatter
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in _COMMANDS:
        module.add_to(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status.

    2 for a wrong flag, 1 for what else stops it, 130 after Ctrl-C.
    """
    args = build_parser().parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    try:
        return cast(Command, args.run)(args)
    except KVLoopError as error:
        print(f"{args.prog}: error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130
