"""`kvloop bench compare` from two files to an exit status."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console

from kvloop.benchmark.compare.compare import compare
from kvloop.benchmark.compare.comparison import Comparison
from kvloop.benchmark.compare.tables import show
from kvloop.benchmark.compare.verdict import Tolerances
from kvloop.benchmark.outlets.files import read_report, write_whole
from kvloop.benchmark.results.document import Report
from kvloop.shared_cache.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareConfig:
    """Fields are the command's flags."""

    a: Path
    b: Path
    arms: tuple[str, ...] = ()
    tolerance: float = 0.05
    rules: tuple[tuple[str, float], ...] = ()
    names: tuple[str, str] | None = None
    allow_different_load: bool = False
    json_file: Path | None = None


def run_compare(config: CompareConfig, console: Console) -> int:
    """Compare, show and write; 1 if anything regressed. Raises ConfigError."""
    a, b = read_report(config.a), read_report(config.b)
    comparison = compare(
        a,
        b,
        Tolerances(default=config.tolerance, rules=config.rules),
        arms=config.arms,
        allow_different_load=config.allow_different_load,
        names=config.names or _names(a, b, config),
        files=(str(config.a), str(config.b)),
    )
    show(comparison, console)
    if config.json_file is not None:
        _write(comparison, config.json_file)
    return 1 if comparison.has_regressed else 0


def _names(a: Report, b: Report, config: CompareConfig) -> tuple[str, str]:
    """The servers', if they tell the two apart, else the files'; a file's for an `other` server."""
    files = config.a.stem, config.b.stem
    servers = a.server.name, b.server.name
    if servers[0] != servers[1]:
        known = [
            file if server == "other" else server
            for file, server in zip(files, servers, strict=True)
        ]
        return known[0], known[1]
    return files if files[0] != files[1] else ("A", "B")


def _write(comparison: Comparison, path: Path) -> None:
    content = msgspec.json.format(msgspec.json.encode(comparison), indent=1)
    try:
        write_whole(path, content + b"\n")
    except OSError as error:
        raise ConfigError(f"--json {path}: cannot be written: {error.strerror}") from error
