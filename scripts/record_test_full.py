#!/usr/bin/env python3
"""Note in docs/test-full.md what became of a run of all tests, as `make test-full` does at its end.

python scripts/record_test_full.py --commit abc parts.xml loops.xml
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOC = ROOT / "docs" / "test-full.md"
HEAD = (
    "| date (UTC) | commit | passed | failed | skipped | minutes | hardware | what failed |",
    "|---|---|---|---|---|---|---|---|",
)
KEPT = 20
"""Rows: older ones go."""
_NAMED = 5
"""Failed tests that a row names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Of one pytest run, or of several one after the other."""

    passed: int
    failed: int
    """Tests; what broke in a fixture is one too."""
    skipped: int
    seconds: float
    failures: tuple[str, ...]
    """Names of the failed."""

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            passed=self.passed + other.passed,
            failed=self.failed + other.failed,
            skipped=self.skipped + other.skipped,
            seconds=self.seconds + other.seconds,
            failures=self.failures + other.failures,
        )


def read_junit(text: str) -> Outcome:
    """What pytest's --junitxml says; raises ValueError for anything else."""
    try:
        suites = list(ElementTree.fromstring(text).iter("testsuite"))
    except ElementTree.ParseError as error:
        raise ValueError(f"no XML: {error}") from None
    if not suites:
        raise ValueError("no <testsuite>: pytest writes one with --junitxml")
    results: dict[str, set[str]] = {}
    for case in (case for suite in suites for case in suite.iter("testcase")):
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        results.setdefault(f"{case.get('classname')}::{case.get('name')}", set()).update(kinds)
    failures = tuple(name for name, kinds in results.items() if kinds & {"failure", "error"})
    skipped = sum(kinds == {"skipped"} for kinds in results.values())
    return Outcome(
        passed=len(results) - len(failures) - skipped,
        failed=len(failures),
        skipped=skipped,
        seconds=sum(float(suite.get("time", 0)) for suite in suites),
        failures=failures,
    )


def row(outcome: Outcome, *, date: str, commit: str, hardware: str) -> str:
    """A line of the table."""
    names = [name.rpartition(".")[2] for name in outcome.failures[:_NAMED]]
    if len(outcome.failures) > _NAMED:
        names.append(f"and {len(outcome.failures) - _NAMED} more")
    failed = ", ".join(names).replace("|", "\\|") or "-"
    minutes = f"{outcome.seconds / 60:.0f}"
    numbers = (outcome.passed, outcome.failed, outcome.skipped, minutes)
    return f"| {date} | {commit} | {' | '.join(map(str, numbers))} | {hardware} | {failed} |"


def with_row(doc: str, new: str) -> str:
    """The document with the row first; raises ValueError where it has no such table."""
    before, head, after = doc.partition("\n".join(HEAD) + "\n")
    if not head:
        raise ValueError(f"{DOC.name} must hold the table that begins with {HEAD[0]!r}")
    lines = after.splitlines()
    num_rows = next((n for n, line in enumerate(lines) if not line.startswith("|")), len(lines))
    rows = [new, *lines[:num_rows]][:KEPT]
    return before + head + "\n".join([*rows, *lines[num_rows:]]) + "\n"


def describe_hardware(num_cores: int, cpuinfo: str, gpus: Sequence[str]) -> str:
    """As `2 cores, AMD EPYC, no GPU`."""
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    kind = next((value.strip() for name, _, value in lines if "model name" in name), "unknown CPU")
    return f"{num_cores} cores, {kind}, {', '.join(gpus) or 'no GPU'}"


def _gpus() -> list[str]:
    """Their names; none where the driver's tool cannot run."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return run.stdout.splitlines() if run.returncode == 0 else []


def _hardware() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    return describe_hardware(len(os.sched_getaffinity(0)), text, _gpus())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("junit", type=Path, nargs="+", help="what pytest wrote with --junitxml")
    parser.add_argument("--commit", required=True, help="that the run began with")
    parser.add_argument("--doc", type=Path, default=DOC)
    args = parser.parse_args()
    try:
        first, *others = [read_junit(path.read_text()) for path in args.junit]
        outcome = sum(others, start=first)
        date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
        line = row(outcome, date=date, commit=args.commit or "unknown", hardware=_hardware())
        args.doc.write_text(with_row(args.doc.read_text(), line))
    except (OSError, ValueError) as error:
        print(f"not recorded: {error}", file=sys.stderr)
        return 1
    print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
