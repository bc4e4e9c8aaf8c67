"""Flags of loads in drawn words: what the requests carry."""

from __future__ import annotations

import argparse

from kvloop.cli import flag_types
from kvloop.shared_cache.errors import ConfigError

_ID_RANGE = (1000, 20000)


def add_content_flags(group: argparse._ArgumentGroup) -> None:
    """--token-ids or --text, and --id-range: `content` and `id_range` of the parsed flags."""
    content = group.add_mutually_exclusive_group()
    content.add_argument(
        "--token-ids",
        dest="content",
        action="store_const",
        const="token-ids",
        default="token-ids",
        help="random token ids to /v1/completions; the default",
    )
    content.add_argument(
        "--text",
        dest="content",
        action="store_const",
        const="text",
        help="random words to /v1/chat/completions",
    )
    group.add_argument(
        "--id-range",
        type=flag_types.whole_range,
        default=_ID_RANGE,
        metavar="LOW:HIGH",
        help="token ids are drawn from LOW up to HIGH; unset: 1000:20000",
    )


def check_content(args: argparse.Namespace) -> None:
    """Raise ConfigError where a flag would change nothing."""
    if args.content == "text" and args.id_range != _ID_RANGE:
        raise ConfigError("--id-range changes nothing with --text: leave one of the two out")
