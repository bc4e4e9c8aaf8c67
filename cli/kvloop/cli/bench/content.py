"""Flags of loads in drawn words: what the requests carry."""

from __future__ import annotations

import argparse

from kvloop.cli import flag_types


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
        default=(1000, 20000),
        metavar="LOW:HIGH",
        help="token ids are drawn from LOW up to HIGH; unset: 1000:20000",
    )
