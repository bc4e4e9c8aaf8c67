#!/usr/bin/env python3
"""What an image installs before our own code: the requirements of extras, one a line.

image_requirements.py [--pyproject FILE] EXTRA...
"""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

OURS = re.compile(r"kvloop\[(.+)\]")
"""An extra that stands for others."""


def requirements(project: Mapping[str, Any], extras: Sequence[str]) -> list[str]:
    """The project's own dependencies and those of `extras`, sorted, each once."""
    return sorted({*project["dependencies"], *_of(project["optional-dependencies"], extras)})


def _of(optional: Mapping[str, Sequence[str]], extras: Sequence[str]) -> Iterator[str]:
    for extra in extras:
        if extra not in optional:
            raise SystemExit(f"no extra {extra!r}; there are: {', '.join(sorted(optional))}")
        for requirement in optional[extra]:
            if named := OURS.fullmatch(requirement):
                yield from _of(optional, named[1].split(","))
            else:
                yield requirement


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pyproject", type=Path, default=Path("pyproject.toml"))
    parser.add_argument("extras", nargs="+", metavar="EXTRA")
    args = parser.parse_args(argv)
    project = tomllib.loads(args.pyproject.read_text(encoding="utf-8"))["project"]
    print("\n".join(requirements(project, args.extras)))


if __name__ == "__main__":
    main()
