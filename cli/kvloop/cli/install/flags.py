"""Flags that the commands share: which cluster, which release, which values."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

RELEASE = "kvloop"
NAMESPACE = "kvloop-system"
TIMEOUT_S = 300.0
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


def duration(text: str) -> float:
    """Seconds: 300, 300s, 5m or 1h30m."""
    found = _DURATION.fullmatch(text)
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    total = hours * 3600 + minutes * 60 + seconds
    if total <= 0:
        raise argparse.ArgumentTypeError(f"must be a time such as 300s or 5m, got {text!r}")
    return float(total)


def existing_file(text: str) -> Path:
    """A file that is there."""
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    return path


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """--release, --namespace, --kubeconfig, --context, --timeout."""
    flag = parser.add_argument_group("cluster").add_argument
    flag("--release", metavar="NAME", default=RELEASE, help="the release's name")
    flag("--namespace", "-n", metavar="NAME", default=NAMESPACE, help="where the operator is")
    flag(
        "--kubeconfig",
        type=existing_file,
        metavar="FILE",
        help="unset: $KUBECONFIG, then ~/.kube/config, then a pod's own account",
    )
    flag("--context", metavar="NAME", help="of the kubeconfig; unset: its current one")
    flag(
        "--timeout",
        type=duration,
        default=TIMEOUT_S,
        metavar="TIME",
        help="longest time of all of it, such as 300s or 5m",
    )


def add_values(parser: argparse.ArgumentParser) -> None:
    """--chart, --values, --set, --wait, --dry-run."""
    flag = parser.add_argument_group("chart").add_argument
    flag(
        "--values",
        "-f",
        type=existing_file,
        action="append",
        default=[],
        metavar="FILE",
        help="YAML with values of the chart; later files win",
    )
    flag(
        "--set",
        action="append",
        default=[],
        dest="sets",
        metavar="KEY=VALUE",
        help="one value, such as operator.replicas=2; wins over files",
    )
    flag(
        "--chart",
        metavar="CHART",
        help="folder, .tgz or oci:// in place of the chart that comes with kvloop",
    )
    flag("--wait", action="store_true", help="return once the operator is ready")
    flag(
        "--dry-run",
        nargs="?",
        const="server",
        choices=("client", "server"),
        metavar="HOW",
        help="print the manifests only; HOW: server (the cluster checks them) or client",
    )
