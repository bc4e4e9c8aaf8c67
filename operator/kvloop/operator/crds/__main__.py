"""`python -m kvloop.operator.crds [--check] [--output DIR] [--page FILE]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from kvloop.operator.crds.files import FOLDER, PAGE, differing, write


def main(words: list[str] | None = None) -> int:
    """Exit status 1: files differ from the types."""
    parser = argparse.ArgumentParser(
        prog="python -m kvloop.operator.crds",
        description="Writes the CRDs, and the docs of their fields, from the types.",
    )
    parser.add_argument("--check", action="store_true", help="only say which files differ")
    parser.add_argument("--output", type=Path, default=FOLDER, metavar="DIR", help="their folder")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="docs of fields")
    chosen = parser.parse_args(words)
    if not chosen.check:
        write(chosen.output, chosen.page)
        return 0
    found = differing(chosen.output, chosen.page)
    for name in found:
        print(f"{name} is not what the types say: run python -m kvloop.operator.crds")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
