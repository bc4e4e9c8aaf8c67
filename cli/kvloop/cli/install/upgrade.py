"""`kvloop upgrade`: another chart version or other values for an installed operator."""

from __future__ import annotations

import argparse

from kvloop.cli.help_format import Subparsers, add_command
from kvloop.cli.install import flags

_EPILOG = """\
exit status: 0 done, 1 the cluster or helm refused, 2 a flag or value is wrong

examples:
  kvloop upgrade --wait                                   the chart of this kvloop, values as before
  kvloop upgrade --set operator.replicas=2 --wait
  kvloop upgrade --reset-values --values values.yaml"""


def add_to(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "upgrade",
        _run,
        help="upgrade or change the operator on a cluster",
        description="Upgrades the release to the chart that comes with this kvloop, as helm "
        "upgrade does. Values that were given before stay unless given anew.",
        epilog=_EPILOG,
    )
    flags.add_cluster(parser)
    flags.add_values(parser)
    parser.add_argument(
        "--reset-values", action="store_true", help="forget the values that were given before"
    )
    parser.add_argument(
        "--rollback-on-failure", action="store_true", help="go back to the release before"
    )


def _run(args: argparse.Namespace) -> int:
    from kvloop.cli.install.bundled import bundled_chart
    from kvloop.cli.install.helm import connected, run
    from kvloop.cli.install.screen import show_release
    from kvloop.cli.install.values import merged, over

    given = merged(args.values, args.sets)
    chart = args.chart or bundled_chart()
    with connected(args) as config:
        # Not helm's own reuse: it would keep the old chart's defaults too.
        before = {} if args.reset_values else run(args, lambda _: config.get_values(args.release))
        release = run(
            args,
            lambda context: config.upgrade(
                chart,
                args.release,
                over(before or {}, given),
                context=context,
                namespace=args.namespace,
                timeout=round(args.timeout),
                wait="watcher" if args.wait else None,
                dry_run=args.dry_run,
                reset_values=True,
                rollback_on_failure=args.rollback_on_failure,
            ),
        )
    show_release(release, as_manifests=args.dry_run is not None)
    return 0
