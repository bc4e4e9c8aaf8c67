"""`kvloop canary`: does KV go round? If not, where does it stop?"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from kvloop.cli import flag_types
from kvloop.cli.help_format import Subparsers, add_command
from kvloop.cli.node_command import ADMIN_KEY_VARIABLE

_DESCRIPTION = """\
Has the router hold a chat of two turns whose second turn may read nothing but the shared cache,
and shows each stage of the loop: the hand-off of KV from prefill to decode (transfer), decode's
pages in the shared cache (write_back), and their use by the next turn (reuse)."""

_EPILOG = f"""\
exit status: 0 if the loop is whole, 1 if it is broken or could not be observed (the stage is named
on stderr), 2 if a flag is wrong or the router cannot be asked

environment:
  {ADMIN_KEY_VARIABLE}   used where --admin-api-key is not given: no process list shows it

example:
  kvloop canary http://127.0.0.1:8000 --admin-api-key KEY"""


def add_to(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "canary",
        _run,
        help="check that KV goes round, stage by stage",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    flag = parser.add_argument
    flag("url", type=flag_types.url, metavar="URL", help="router, such as http://127.0.0.1:8000")
    flag("--admin-api-key", metavar="KEY", help="the router's")
    flag(
        "--timeout-s",
        type=flag_types.positive_float,
        default=120.0,
        metavar="S",
        help="longest wait for the router; it has its own --canary-timeout-s",
    )
    flag("--json", action="store_true", help="print the router's report instead of a table")


def _run(args: argparse.Namespace) -> int:
    from kvloop.cli.canary_client import NotAsked, ask_canary
    from kvloop.cli.canary_table import show

    key = args.admin_api_key or os.environ.get(ADMIN_KEY_VARIABLE) or None
    try:
        report = asyncio.run(ask_canary(args.url, key, args.timeout_s))
    except NotAsked as error:
        print(f"{args.prog}: error: {error}", file=sys.stderr)
        return 2
    return show(report, as_json=args.json)
