"""`kvloop bench storage`: what a storage backend moves, beside what the storage itself can."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvloop.cli import flag_types
from kvloop.cli.help_format import Subparsers, add_command

_DESCRIPTION = """\
Writes and reads pages through a storage backend as nodes do, and in the same run through what
limits it: a memory copy, and the raw file system or Mooncake's own client where there is one.
Everything is written under a namespace of its own, which is removed at the end."""

_EPILOG = """\
exit status: 0 if every page was moved, 1 if some were not or the store failed, 2 if a flag is wrong

example:
  kvloop bench storage --backend file --extra-config '{"root": "/mnt/nvme/kvloop"}' \\
      --page-bytes 1048576 --pages-per-batch 32 --threads 2"""


def add_to(kinds: Subparsers) -> None:
    """Add `storage` to the benchmarks."""
    parser = add_command(
        kinds,
        "storage",
        _run,
        help="throughput and latency of a storage backend",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    _add_backend_flags(parser.add_argument_group("backend"))
    _add_load_flags(parser.add_argument_group("load"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured here")


def _add_backend_flags(group: argparse._ArgumentGroup) -> None:
    flag = group.add_argument
    flag("--backend", required=True, metavar="NAME", help="file, mooncake, hf3fs, nixl, ...")
    flag(
        "--extra-config",
        type=flag_types.json_object,
        default={},
        metavar="JSON",
        help="the backend's configuration, or @FILE",
    )
    flag(
        "--dynamic-modules",
        nargs="+",
        default=[],
        metavar="MODULE",
        help="that backend dynamic may load",
    )


def _add_load_flags(group: argparse._ArgumentGroup) -> None:
    flag, whole = group.add_argument, flag_types.positive_int
    flag("--page-bytes", type=whole, default=1 << 20, metavar="N", help="payload of a page")
    flag("--pages-per-batch", type=whole, default=32, metavar="N", help="pages of one call")
    flag("--threads", type=whole, default=1, metavar="N", help="calls at once")
    flag("--total-bytes", type=whole, default=512 << 20, metavar="N", help="moved by each phase")
    flag(
        "--read-share",
        type=flag_types.not_negative_float,
        default=0.7,
        metavar="SHARE",
        help="reads among the calls of the mixed phase, 0 to 1",
    )
    flag("--rounds", type=whole, default=5, metavar="N", help="each arm runs once a round")
    flag("--num-exists", type=whole, default=1000, metavar="N", help="keys of one exists call")
    flag("--seed", type=flag_types.count, default=0, metavar="N", help="draws keys and order")
    flag(
        "--checksums",
        choices=("on", "off", "both"),
        default="both",
        help="measure with them, without, or both",
    )


def _run(args: argparse.Namespace) -> int:
    from kvloop.benchmark.storage.load import StorageLoad
    from kvloop.benchmark.storage.run import StorageBenchConfig, run_storage_bench

    load = StorageLoad(
        page_bytes=args.page_bytes,
        pages_per_batch=args.pages_per_batch,
        threads=args.threads,
        total_bytes=args.total_bytes,
        read_share=args.read_share,
        rounds=args.rounds,
        num_exists=args.num_exists,
        seed=args.seed,
    )
    return run_storage_bench(
        StorageBenchConfig(
            backend=args.backend,
            extra_config=args.extra_config,
            load=load,
            checksums=args.checksums,
            dynamic_modules=args.dynamic_modules,
            json_file=args.json,
        )
    )
