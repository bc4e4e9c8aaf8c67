#!/usr/bin/env python3
"""Runs pytest; at most three tests that failed are run once more, alone, and named.

    python scripts/run_tests.py NAME PYTEST_ARGUMENT...

Real processes on a busy machine meet deadlines that they keep on a quiet one. A test that fails
twice fails; one that passes alone is told as UNSTEADY, here and in build/tests/NAME/unsteady.txt.
`make test-full` does without: what it writes down is the first outcome.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TESTS_FAILED = 1
"""pytest's exit status."""
MOST = 3
"""More failures than these are no accident."""


def main(argv: Sequence[str]) -> int:
    """Exit status of pytest's first run, or 0 where all that failed then passed alone."""
    name, *arguments = argv
    place = Path("build/tests") / name
    shutil.rmtree(place, ignore_errors=True)
    status = _pytest(place / "first", arguments)
    failed = failures(place / "first")
    if status != TESTS_FAILED or not 0 < len(failed) <= MOST:
        return status
    print(f"\n{len(failed)} failed; each runs once more, alone", flush=True)
    if _pytest(place / "second", failed) != 0:
        return TESTS_FAILED
    (place / "unsteady.txt").write_text("".join(f"{test}\n" for test in failed))
    for test in failed:
        print(f"UNSTEADY: {test} failed among others and passed alone", flush=True)
    return 0


def failures(cache: Path) -> list[str]:
    """Node ids, as pytest's cache has them."""
    file = cache / "v/cache/lastfailed"
    return sorted(json.loads(file.read_text())) if file.is_file() else []


def _pytest(cache: Path, arguments: Sequence[str]) -> int:
    command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={cache}", *arguments]
    return subprocess.run(command).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
