"""How help looks, and what a command is."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Subparsers = object

Command = Callable[[argparse.Namespace], int]


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the description's lines and shows each flag's default, where there is one."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34)

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.default is argparse.SUPPRESS or not isinstance(action.default, int | float | str):
            return text
        if isinstance(action.default, bool) or action.default == "" or action.nargs == 0:
            return text
        return f"{text} (default: %(default)s)"


def add_command(
    commands: Subparsers, name: str, run: Command, **texts: Any
) -> argparse.ArgumentParser:
    """A subcommand whose parsed flags go to `run`; `texts` are its help, description, epilog."""
    parser = commands.add_parser(name, formatter_class=HelpFormatter, allow_abbrev=False, **texts)
    parser.set_defaults(run=run, prog=parser.prog)
    return parser
