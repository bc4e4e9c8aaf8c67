"""What the commands of the loads in drawn words have in common."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from kvloop.cli.bench import common

if TYPE_CHECKING:
    from kvloop.benchmark.driver.api import ServedModel
    from kvloop.benchmark.workloads.scripted import Scripted


def run(args: argparse.Namespace, load: Scripted) -> int:
    """Drive it, unless the server says that its model cannot take prompts so long."""

    def checked(model: ServedModel) -> Scripted:
        load.check_context(model.context)
        return load

    return common.run(args, checked)
