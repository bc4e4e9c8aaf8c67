"""The flags of decode's asynchronous offload."""

from __future__ import annotations

import argparse
from typing import get_args

from kvloop.cli import flag_types
from kvloop.shared_cache.hicache_names import BackPressure, OffloadPolicy


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the group."""
    flag = parser.add_argument_group("offload to the shared cache").add_argument
    flag(
        "--offload-policy",
        choices=get_args(OffloadPolicy),
        help="which full pages are stored: all; those that the next turn's prompt can repeat; or "
        "of these only the ones of sessions that the router expects to return",
    )
    flag(
        "--offload-staging-pages",
        type=flag_types.positive_int,
        metavar="PAGES",
        help="host pages on their way to L3 at once; unset: all that --hicache-size holds",
    )
    flag(
        "--offload-back-pressure",
        choices=get_args(BackPressure),
        help="while all of these are in use: delay keeps full pages on the device, the others give "
        "up the page that filled last, or the one that has waited longest",
    )
    flag(
        "--offload-retries",
        type=flag_types.count,
        metavar="N",
        help="further attempts at a page that L3 did not take, with growing pauses",
    )
    flag(
        "--offload-deadline-s",
        type=flag_types.positive_float,
        metavar="S",
        help="so long after a request's end what is not stored of it is given up",
    )
