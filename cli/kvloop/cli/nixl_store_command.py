"""`kvloop nixl-store`: memory of this machine that backend nixl reads and writes by UCX."""

from __future__ import annotations

import argparse
from functools import partial

from kvloop.cli import flag_types
from kvloop.cli.help_format import Subparsers, add_command

_DESCRIPTION = """\
Gives memory of this machine to the storage backend nixl with plugin UCX: nodes read and write it
one-sided, over shared memory, TCP or RDMA as UCX chooses. It keeps nothing on a disk, knows no
replicas and asks for no key: for private networks only."""

_EPILOG = """\
example (16 GiB to share; then give the nodes these flags):
  kvloop nixl-store --host 10.0.0.7 --segment-size 16
  --hicache-storage-backend nixl
  --hicache-storage-backend-extra-config '{"plugin": "UCX", "server": "10.0.0.7:50061"}'"""


def add_to(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "nixl-store",
        _run,
        help="a memory server for backend nixl",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    flag, seconds = parser.add_argument, flag_types.positive_float
    flag("--host", default="127.0.0.1", help="address of this machine that nodes reach")
    flag("--port", type=flag_types.port, default=50061, help="where nodes ask for places")
    flag(
        "--segment-size",
        type=flag_types.positive_float,
        default=4.0,
        metavar="GIB",
        help="memory for pages; the least recently used make room",
    )
    flag(
        "--record-bytes",
        type=flag_types.positive_int,
        default=64 << 20,
        metavar="N",
        help="memory for small records",
    )
    flag("--lease-s", type=seconds, default=30.0, metavar="S", help="longest read or write")


def _run(args: argparse.Namespace) -> int:
    from kvloop.shared_cache.backends.nixl.server import MemoryServerConfig, run_memory_server

    config = MemoryServerConfig(
        host=args.host,
        port=args.port,
        segment_bytes=int(args.segment_size * 2**30),
        record_bytes=args.record_bytes,
        lease_s=args.lease_s,
    )
    run_memory_server(config, partial(print, flush=True))
    return 0
