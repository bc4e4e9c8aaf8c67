"""`kvloop status`: the release, its operator, and what it runs."""

from __future__ import annotations

import argparse

from kvloop.cli.help_format import Subparsers, add_command
from kvloop.cli.install import flags

_EPILOG = """\
exit status: 0 the operator and all SharedCaches and PDClusters are ready, 1 they are not, or the
cluster or helm refused, 2 a flag is wrong"""


def add_to(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "status",
        _run,
        help="show the operator on a cluster, and what it runs",
        description="Shows the release, whether its operator is ready, and the conditions of all "
        "SharedCaches, PDClusters and MultiTurnBenchmarks that it watches.",
        epilog=_EPILOG,
    )
    flags.add_cluster(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def _run(args: argparse.Namespace) -> int:
    from kvloop.cli.install.helm import connected, run
    from kvloop.cli.install.kubernetes_api import opened
    from kvloop.cli.install.seen import look
    from kvloop.cli.install.tables import show

    with connected(args) as config:
        release = run(args, lambda _: config.status(args.release))
        values = run(args, lambda _: config.get_values(args.release, all_values=True))
        with opened(args) as cluster:
            seen = look(cluster, release, values)
    show(seen, as_json=args.json)
    return 0 if seen.is_ready else 1
