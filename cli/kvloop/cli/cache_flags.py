"""The flags of HiCache, on both kinds of node; their names are SGLang's where it has them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, get_args

from kvloop.cli import flag_types
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.hicache_names import (
    BackendName,
    Codec,
    EvictionPolicy,
    HostLayout,
    PrefetchPolicy,
    WritePolicy,
)

if TYPE_CHECKING:
    from kvloop.shared_cache.storage_change import Member

_BACKEND = "hicache_storage_backend"
_EXTRA_CONFIG = "hicache_storage_backend_extra_config"


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the groups of the three tiers."""
    _add_tiers(parser.add_argument_group("cache: device (L1) and host memory (L2)"))
    _add_storage(parser.add_argument_group("cache: shared storage (L3)"))
    _add_prefetch(parser.add_argument_group("cache: prefetch from L3 (prefill)"))


def _add_tiers(group: argparse._ArgumentGroup) -> None:
    flag = group.add_argument
    flag(
        "--hicache-ratio",
        type=flag_types.positive_float,
        metavar="R",
        help="host pages for each device page, where --hicache-size is not given (prefill)",
    )
    flag(
        "--hicache-size",
        type=flag_types.positive_float,
        metavar="GB",
        help="host memory pool; unset: by --hicache-ratio on prefill, 0.5 on decode",
    )
    flag(
        "--hicache-write-policy",
        choices=get_args(WritePolicy),
        help="when a page is copied to host memory and from there to L3: as it is computed, at its "
        "second use, or as the device evicts it",
    )
    flag(
        "--hicache-write-through-threshold",
        type=flag_types.positive_int,
        metavar="USES",
        help="uses of a page that make write_through_selective copy it",
    )
    flag(
        "--hicache-io-backend",
        choices=("kernel", "direct"),
        help="between device and host: a gather/scatter kernel, or batched asynchronous copies",
    )
    flag("--hicache-mem-layout", choices=get_args(HostLayout), help="order of a page in L2")
    flag(
        "--hicache-codec",
        choices=get_args(Codec),
        help="none: pages as they are; int8, fp8: half the bytes in L2 and L3, not exact",
    )
    flag("--radix-eviction-policy", choices=get_args(EvictionPolicy), help="who leaves L1 first")
    flag(
        "--hicache-eviction-policy",
        choices=get_args(EvictionPolicy),
        help="who leaves L2 first; unset: as L1",
    )
    flag(
        "--hicache-tenant-quotas",
        type=flag_types.json_object,
        metavar="JSON|@FILE",
        help='host pages by tenant, such as {"team-a": 1000, "*": 500}; unset: no limit',
    )


def add_attach_file(group: argparse._ArgumentGroup) -> None:
    """Of nodes and router."""
    group.add_argument(
        "--hicache-storage-attach-file",
        metavar="FILE",
        help="read at start instead of the two flags above: JSON as the admin API's PUT takes it, "
        "{} for none",
    )


def attached(args: argparse.Namespace, member: Member) -> dict[str, Any]:
    """What the flags of the shared cache say; raises ConfigError for a file that is no good, or
    one beside --hicache-storage-backend."""
    from kvloop.shared_cache.attach_file import FLAG, read_attach_file

    given = {name: getattr(args, name) for name in (_BACKEND, _EXTRA_CONFIG)}
    if args.hicache_storage_attach_file is None:
        return given
    if given[_BACKEND] is not None or given[_EXTRA_CONFIG]:
        raise ConfigError(f"{FLAG} says all of the shared cache: leave --{_flag(given)} out")
    change = read_attach_file(args.hicache_storage_attach_file, member)
    policies = {
        "hicache_storage_prefetch_policy": change.prefetch_policy,
        "hicache_write_policy": change.write_policy,
    }
    chosen = {name: policy for name, policy in policies.items() if policy is not None}
    return {_BACKEND: change.backend, _EXTRA_CONFIG: change.extra_config, **chosen}


def _flag(given: dict[str, Any]) -> str:
    name = _BACKEND if given[_BACKEND] is not None else _EXTRA_CONFIG
    return name.replace("_", "-")


def _add_storage(group: argparse._ArgumentGroup) -> None:
    flag = group.add_argument
    flag(
        "--hicache-storage-backend",
        choices=get_args(BackendName),
        help="the cache shared between nodes; unset: none",
    )
    flag(
        "--hicache-storage-backend-extra-config",
        type=flag_types.json_object,
        metavar="JSON|@FILE",
        help='settings of that backend, such as {"master_server_address": "127.0.0.1:50051"}',
    )
    flag(
        "--hicache-dynamic-modules",
        action="append",
        metavar="MODULE",
        help="module that a dynamic backend may be loaded from; repeat it for several",
    )
    add_attach_file(group)
    flag("--release-tag", metavar="TAG", help="pages are shared only between equal tags")
    flag(
        "--tail-objects",
        action=argparse.BooleanOptionalAction,
        help="decode stores the last partial page of a finished turn, prefill looks for it",
    )


def _add_prefetch(group: argparse._ArgumentGroup) -> None:
    flag, seconds = group.add_argument, flag_types.not_negative_float
    flag(
        "--hicache-storage-prefetch-policy",
        choices=get_args(PrefetchPolicy),
        help="how long a prompt that could be computed waits for its pages: while that is faster "
        "than computing; so too but with a limit; or until all are there",
    )
    flag(
        "--hicache-prefetch-threshold",
        type=flag_types.count,
        metavar="TOKENS",
        help="a shorter rest of a prompt is not looked for in L3",
    )
    flag("--hicache-prefetch-timeout-base", type=seconds, metavar="S", help="limit of timeout")
    flag(
        "--hicache-prefetch-timeout-per-ki-token",
        type=seconds,
        metavar="S",
        help="added to it for each 1,024 tokens",
    )
    flag(
        "--hicache-prefetch-cap-s",
        type=flag_types.positive_float,
        metavar="S",
        help="wait_complete waits no longer than this",
    )
    flag(
        "--hicache-prefetch-share",
        type=flag_types.positive_float,
        metavar="SHARE",
        help="share of L2 that pages on their way from L3 may hold",
    )
