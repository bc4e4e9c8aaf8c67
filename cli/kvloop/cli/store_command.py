"""`kvloop store`: a Mooncake master and one store segment."""

from __future__ import annotations

import argparse

from kvloop.cli import flag_types
from kvloop.cli.help_format import Subparsers, add_command

_DESCRIPTION = """\
Starts a Mooncake master and mounts a segment of this machine's memory in it: the cache that
nodes share with --hicache-storage-backend mooncake."""

_EPILOG = """\
example (1 GiB to share; then give the nodes this flag):
  kvloop store --port 50051 --segment-size 1
  --hicache-storage-backend-extra-config '{"master_server_address": "127.0.0.1:50051"}'"""


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
    flag("--port", type=flag_types.port, default=50051, help="port of the master's RPC")
    flag("--metrics-port", type=flag_types.port, default=9003, help="port of the master's metrics")
    flag(
        "--segment-size",
        type=flag_types.positive_float,
        default=1.0,
        metavar="GIB",
        help="memory that this machine gives to the store",
    )
    flag("--protocol", choices=("tcp", "rdma"), default="tcp", help="how pages move")
    flag("--device-name", default="", metavar="NAMES", help="RDMA devices, comma-separated")
    flag(
        "--restart-master",
        action="store_true",
        help="start the master again when it dies (its keys are lost either way)",
    )


def _run(args: argparse.Namespace) -> int:
    from kvloop.shared_cache.backends.mooncake.store_server import StoreConfig, run_store

    run_store(
        StoreConfig(
            host=args.host,
            port=args.port,
            metrics_port=args.metrics_port,
            segment_bytes=int(args.segment_size * 2**30),
            protocol=args.protocol,
            device_name=args.device_name,
            restart_master=args.restart_master,
        )
    )
    return 0
