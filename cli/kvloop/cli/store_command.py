"""`kvloop store`: a Mooncake master, a store node, or both."""

from __future__ import annotations

import argparse
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from kvloop.cli import flag_types
from kvloop.cli.help_format import Subparsers, add_command
from kvloop.shared_cache.errors import ConfigError

if TYPE_CHECKING:  # the command line is read without what only a store takes
    from kvloop.shared_cache.backends.mooncake.store_config import StoreConfig

_DESCRIPTION = """\
Starts a Mooncake master and mounts a segment of this machine's memory in it: the cache that
nodes share with --hicache-storage-backend mooncake. With --master only the segment, which joins a
master that runs already; with --segment-size 0 only the master."""

_EPILOG = """\
example (1 GiB to share; then give the nodes this flag):
  kvloop store --port 50051 --segment-size 1
  --hicache-storage-backend-extra-config '{"master_server_address": "127.0.0.1:50051"}'

example (16 GiB more, of another machine):
  kvloop store --master 10.0.0.1:50051 --host 10.0.0.2 --segment-size 16

example (on each of three machines, with an etcd; nodes are given the etcd:// address):
  kvloop store --host 10.0.0.1 --ha etcd://10.0.0.9:2379 --segment-size 16"""


def add_to(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "store",
        _run,
        help="a Mooncake master and store",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    flag = parser.add_argument
    flag("--host", default="127.0.0.1", help="address that nodes reach this machine at")
    flag(
        "--health-port",
        type=flag_types.port,
        metavar="PORT",
        help="serve /healthz and /readyz there, on all addresses",
    )
    _add_segment_flags(parser)
    _add_master_flags(parser)
    _add_lease_flags(parser)


def _add_segment_flags(parser: argparse.ArgumentParser) -> None:
    flag = parser.add_argument
    flag(
        "--segment-size",
        type=flag_types.not_negative_float,
        default=1.0,
        metavar="GIB",
        help="memory that this machine gives to the store; 0: a master only",
    )
    flag(
        "--segment-port",
        type=flag_types.port,
        help="makes HOST:PORT the segment's name, for preferred_segments",
    )
    flag("--protocol", choices=("tcp", "rdma"), default="tcp", help="how pages move")
    flag("--device-name", default="", metavar="NAMES", help="RDMA devices, comma-separated")
    flag("--ssd-dir", default="", metavar="DIR", help="where pages go when memory is short")
    flag(
        "--master",
        default="",
        metavar="ADDRESS",
        help="join this master, host:port or etcd://host:port, and start none",
    )
    flag(
        "--join-s",
        type=flag_types.not_negative_float,
        default=0.0,
        metavar="S",
        help="look for that master so long, where it may start later",
    )
    flag("--cluster-id", default="", metavar="NAME", help="which of the clusters in one etcd")


def _add_master_flags(parser: argparse.ArgumentParser) -> None:
    flag = parser.add_argument
    flag("--port", type=flag_types.port, default=50051, help="port of the master's RPC")
    flag("--metrics-port", type=flag_types.port, default=9003, help="port of the master's metrics")
    flag(
        "--restart-master",
        action="store_true",
        help="start the master again when it dies (without --ha its keys are lost either way)",
    )
    flag(
        "--ha",
        default="",
        metavar="ETCD",
        help="etcd://host:port;host:port: the master is one of several, and one of them leads",
    )
    flag(
        "--client-ttl",
        type=flag_types.positive_int,
        default=10,
        metavar="SECONDS",
        help="a store node not heard of for so long is given up",
    )
    flag(
        "--tenant-quotas",
        type=flag_types.json_object,
        default={},
        metavar="JSON|@FILE",
        help='GiB by tenant_id, such as {"team-a": 8}; others then store nothing',
    )
    flag(
        "--master-flag",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other flag of mooncake_master, such as eviction_ratio=0.1; may be repeated",
    )


def _add_lease_flags(parser: argparse.ArgumentParser) -> None:
    flag = parser.add_argument
    flag(
        "--lease",
        default="",
        metavar="NAMESPACE/NAME",
        help="in a pod: the master runs only while it holds this Kubernetes Lease, which must be "
        "there; with --segment-size 0",
    )
    flag(
        "--identity",
        default="",
        metavar="POD[_UID]",
        help="who holds it; the pod is labelled kvloop.dev/leader=true while it leads",
    )
    flag(
        "--lease-s",
        type=flag_types.positive_float,
        default=15.0,
        metavar="S",
        help="another leads so long after the leader's last sign",
    )


def _run(args: argparse.Namespace) -> int:
    report = partial(print, flush=True)
    if args.lease:
        from kvloop.cli.store.elected import LeaseFlags, run_elected

        flags = LeaseFlags(
            lease=args.lease,
            identity=args.identity,
            lease_s=args.lease_s,
            health_port=args.health_port,
        )
        run_elected(_config(args), flags, report)
        return 0
    from kvloop.cli.store.health import health_server
    from kvloop.shared_cache.backends.mooncake.store_server import run_store

    ready = threading.Event()

    def told(line: str) -> None:
        """The first line comes when the store is ready."""
        ready.set()
        report(line)

    with health_server(args.health_port, is_ready=ready.is_set):
        run_store(_config(args), told)
    return 0


def _config(args: argparse.Namespace) -> StoreConfig:
    from kvloop.shared_cache.backends.mooncake.store_server import StoreConfig

    return StoreConfig(
        host=args.host,
        master=args.master,
        port=args.port,
        metrics_port=args.metrics_port,
        segment_bytes=int(args.segment_size * 2**30),
        segment_port=args.segment_port,
        protocol=args.protocol,
        device_name=args.device_name,
        ssd_dir=args.ssd_dir,
        join_s=args.join_s,
        restart_master=args.restart_master,
        ha=args.ha,
        cluster_id=args.cluster_id,
        client_ttl_s=args.client_ttl,
        tenant_quotas={name: _quota_bytes(name, gib) for name, gib in args.tenant_quotas.items()},
        master_flags=tuple(args.master_flag),
    )


def _quota_bytes(tenant: str, gib: Any) -> int:
    if isinstance(gib, bool) or not isinstance(gib, int | float) or not 0 < gib < 1 << 30:
        raise ConfigError(f"--tenant-quotas: {tenant!r} must have GiB above 0, got {gib!r}")
    return int(gib * 2**30)
