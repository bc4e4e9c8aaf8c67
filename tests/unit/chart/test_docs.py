"""docs/kubernetes.md knows every reason, example and command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from chart import CHART
from condition_reasons import reasons

from kvloop.benchmark.outlets.termination import Reason
from kvloop.cli.main import build_parser

DOCS = Path(__file__).parents[3] / "docs" / "kubernetes.md"
TEXT = DOCS.read_text()
ROWS = TEXT.partition("## When something is not Ready")[2].partition("\n## ")[0]
TOLD = {
    word
    for row in ROWS.splitlines()
    if row.startswith("| `")
    for word in re.findall(r"`(\w+)`", row.split("|")[1])
}
GIVEN = set(reasons()) | set(get_args(Reason))


def test_enough_reasons_are_found_to_be_all_of_them() -> None:
    assert {"InsufficientCapacity", "NoLeader", "Stale", "Evicted", "ClusterNotFound"} <= GIVEN


@pytest.mark.parametrize("reason", sorted(GIVEN))
def test_every_reason_of_the_code_has_a_row(reason: str) -> None:
    assert reason in TOLD


def test_no_row_is_about_a_reason_that_is_never_given() -> None:
    assert TOLD <= GIVEN


def test_the_page_is_short_and_its_lines_are_too() -> None:
    lines = TEXT.splitlines()
    assert len(lines) <= 140
    assert [line for line in lines if len(line) > 130 and not line.startswith("|")] == []


def test_every_example_is_told_of() -> None:
    for path in (CHART / "examples").glob("*.yaml"):
        assert path.name in TEXT, path.name


def test_every_kvloop_command_of_the_page_parses() -> None:
    commands = re.findall(r"(?:^|`|&& )kvloop ((?:install|upgrade|uninstall|status)[^`|\n]*)", TEXT)
    assert len(commands) >= 5
    for command in commands:
        words = command.replace("-f values.yaml", f"-f {CHART}/values.yaml").split()
        build_parser().parse_args(words[: words.index("(keeps")] if "(keeps" in words else words)
