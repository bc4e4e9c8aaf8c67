"""Conversations that leave others midway and go on in words of their own."""

from __future__ import annotations

from collections.abc import Callable

from kvloop.benchmark.workloads.amounts import Amount, check_number, fewest
from kvloop.benchmark.workloads.plan import Branch
from kvloop.benchmark.workloads.script import Line, Script
from kvloop.shared_cache.errors import ConfigError


def check_branching(
    branches: tuple[str, int], after: tuple[str, int], turns: tuple[str, Amount]
) -> None:
    """Raises ConfigError; each of the three is a flag and its value."""
    check_number(*branches, least=0)
    least = fewest(turns[1])
    if branches[1] and not 1 <= after[1] < least:
        raise ConfigError(
            f"{after[0]} must be 1 or above and below the fewest {turns[0]} ({least}), so that "
            f"something is left to say, got {after[1]}"
        )


def write_families(
    num_roots: int,
    branches_each: int,
    turns: int,
    write_root: Callable[[int], tuple[Line, ...]],
    write_branch: Callable[[int, int], tuple[Line, ...]],
) -> tuple[Script, ...]:
    """Each root with the branches that leave it after `turns` turns right behind it.

    `write_root(root)` and `write_branch(root, number)` give the lines; branches count from 1.
    """
    scripts: list[Script] = []
    for root in range(num_roots):
        branch = Branch(parent=len(scripts), turns=turns)
        scripts.append(Script(lines=write_root(root)))
        scripts += [
            Script(lines=write_branch(root, number), branch=branch)
            for number in range(1, branches_each + 1)
        ]
    return tuple(scripts)
