"""What the commands of the loads in drawn words have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from kvloop.cli.bench import common
from kvloop.cli.bench.content import check_content
from kvloop.shared_cache.errors import ConfigError

if TYPE_CHECKING:
    from kvloop.benchmark.driver.api import ServedModel
    from kvloop.benchmark.workloads.scripted import Scripted


def run(
    args: argparse.Namespace,
    make_load: Callable[[], Scripted],
    needs: Sequence[tuple[str, str]] = (),
) -> int:
    """Drive the load, unless the server says that its model cannot take prompts so long.

    `needs`: pairs of the load's fields, of which the first counts only with the second. A flag
    that would change nothing is refused.
    """
    with common.refusals_told(args):
        check_content(args)
        load = make_load()
        for name, other in needs:
            _check_need(load, name, other)

    def checked(model: ServedModel) -> Scripted:
        load.check_context(model.context)
        return load

    return common.run(args, checked)


def _check_need(load: Scripted, name: str, other: str) -> None:
    default = next(one.default for one in fields(load) if one.name == name)
    if getattr(load, name) != default and not getattr(load, other):
        raise ConfigError(f"{_flag(name)} changes nothing without {_flag(other)}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
