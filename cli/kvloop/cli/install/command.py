"""`kvloop install | upgrade | uninstall | status`: what helm does, without a helm binary."""

from __future__ import annotations

from kvloop.cli.help_format import Subparsers
from kvloop.cli.install import install, status, uninstall, upgrade


def add_to(commands: Subparsers) -> None:
    """Add the four commands."""
    for module in (install, upgrade, uninstall, status):
        module.add_to(commands)
