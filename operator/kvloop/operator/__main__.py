"""`python -m kvloop.operator`: the operator."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from kvloop.operator.runtime import logs
from kvloop.operator.runtime.leader import LeadershipLost
from kvloop.operator.runtime.process import run
from kvloop.operator.settings import Settings

log = logging.getLogger("kvloop.operator")
DEFAULT_NAMESPACE = "kvloop-system"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def _seconds(text: str) -> float:
    """More than none."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 seconds")
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 65535")
    return number


def parser() -> argparse.ArgumentParser:
    """All flags."""
    made = argparse.ArgumentParser(
        prog="python -m kvloop.operator",
        description="Runs SharedCaches, PDClusters and MultiTurnBenchmarks of a cluster.",
    )
    add = made.add_argument
    add("--node-image", required=True, help="image of kvloop's own pods")
    add("--operator-image", default="", help="image of this operator")
    add(
        "--namespace",
        action="append",
        default=[],
        metavar="NAME",
        help="watch this one only; may be repeated; without it all are watched",
    )
    add("--own-namespace", help="where its Lease lies; default: the pod's, else the first watched")
    add(
        "--kubeconfig",
        type=Path,
        metavar="FILE",
        help="outside of the cluster; KUBECONFIG is not read",
    )
    add("--no-leader-election", action="store_true", help="for a trial: never beside another one")
    add("--port", type=_port, default=8080, help="/healthz, /readyz and /metrics; 0: any")
    add(
        "--api-timeout",
        type=_seconds,
        default=15.0,
        metavar="S",
        help="of one call of the API server",
    )
    add("--node-timeout", type=_seconds, default=5.0, metavar="S", help="of one call of a node")
    add(
        "--resync",
        type=_seconds,
        default=10.0,
        metavar="S",
        help="look again after this at the latest",
    )
    add("--log-format", choices=("text", "json"), default="text")
    add("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO")
    return made


def settings_of(flags: argparse.Namespace) -> Settings:
    """What the flags say."""
    return Settings(
        node_image=flags.node_image,
        operator_image=flags.operator_image,
        namespaces=tuple(dict.fromkeys(flags.namespace)),
        own_namespace=flags.own_namespace or _own_namespace(flags),
        resync_s=flags.resync,
        api_timeout_s=flags.api_timeout,
        node_timeout_s=flags.node_timeout,
        port=flags.port,
    )


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0 stopped, 1 no longer the leader, 2 wrong flags."""
    flags = parser().parse_args(words)
    logs.set_up(flags.log_format, flags.log_level)
    try:
        asyncio.run(run(settings_of(flags), flags.kubeconfig, elect=not flags.no_leader_election))
    except ValueError as error:
        log.error("%s", error)
        return 2
    except LeadershipLost as error:
        log.error("%s", error)
        return 1
    return 0


def _own_namespace(flags: argparse.Namespace) -> str:
    if flags.kubeconfig is None and NAMESPACE_FILE.is_file():
        return NAMESPACE_FILE.read_text().strip()
    return flags.namespace[0] if flags.namespace else DEFAULT_NAMESPACE


if __name__ == "__main__":
    sys.exit(main())
