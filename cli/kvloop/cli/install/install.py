"""`kvloop install`: the operator and its custom resources on a cluster."""

from __future__ import annotations

import argparse

from kvloop.cli.help_format import Subparsers, add_command
from kvloop.cli.install import flags

_EPILOG = """\
exit status: 0 done, 1 the cluster or helm refused, 2 a flag or value is wrong

examples:
  kvloop install --create-namespace --wait
  kvloop install --set image.operator.repository=registry.example.com/kvloop-operator \\
                 --set image.node.repository=registry.example.com/kvloop-node
  kvloop install --set 'operator.namespaces={chat,agents}'"""


def add_to(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "install",
        _run,
        help="install the operator on a Kubernetes cluster",
        description="Installs the chart that comes with kvloop, as helm install does.",
        epilog=_EPILOG,
    )
    flags.add_cluster(parser)
    flags.add_values(parser)
    parser.add_argument("--create-namespace", action="store_true", help="where it is not there")


def _run(args: argparse.Namespace) -> int:
    from kvloop.cli.install.bundled import bundled_chart
    from kvloop.cli.install.helm import connected, run
    from kvloop.cli.install.screen import show_release
    from kvloop.cli.install.values import merged

    values = merged(args.values, args.sets)
    chart = args.chart or bundled_chart()
    with connected(args) as config:
        release = run(
            args,
            lambda context: config.install(
                chart,
                args.release,
                values,
                context=context,
                namespace=args.namespace,
                create_namespace=args.create_namespace,
                timeout=round(args.timeout),
                wait="watcher" if args.wait else None,
                dry_run=args.dry_run,
            ),
        )
    show_release(release, as_manifests=args.dry_run is not None)
    return 0
