"""`kvloop uninstall`: the operator goes, and with it, or before it, what it runs."""

from __future__ import annotations

import argparse
import time

from kvloop.cli.help_format import Subparsers, add_command
from kvloop.cli.install import flags

_DESCRIPTION = """\
Removes the release. SharedCaches, PDClusters and MultiTurnBenchmarks that are there must be named
first: --resources delete stops their pods before the operator goes, --resources keep leaves them
(the release must have crds.keep)."""
_EPILOG = """\
exit status: 0 done, 1 the cluster or helm refused, 2 a flag is wrong

examples:
  kvloop uninstall --resources delete --wait      nothing is left behind
  kvloop upgrade --set crds.keep=true && kvloop uninstall --resources keep"""


def add_to(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "uninstall",
        _run,
        help="remove the operator from a cluster",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    flags.add_cluster(parser)
    parser.add_argument(
        "--resources",
        choices=("delete", "keep"),
        help="what becomes of the custom resources; needed where there are any",
    )
    parser.add_argument("--wait", action="store_true", help="return once all of it is gone")


def _run(args: argparse.Namespace) -> int:
    from kvloop.cli.install.helm import connected, run
    from kvloop.cli.install.kubernetes_api import opened
    from kvloop.cli.install.removal import Fate, remove_resources, wait_for_operator

    deadline = time.monotonic() + args.timeout
    with connected(args) as config, opened(args) as cluster:
        values = run(args, lambda _: config.get_values(args.release, all_values=True))
        remove_resources(cluster, Fate.of(values, args.resources), deadline)
        left = max(1, round(deadline - time.monotonic()))
        wait = "watcher" if args.wait else None
        run(args, lambda _: config.uninstall(args.release, timeout=left, wait=wait))
        if args.wait:
            wait_for_operator(cluster, args.namespace, args.release, deadline)
    print(f"release {args.release} in namespace {args.namespace} is uninstalled", flush=True)
    return 0
