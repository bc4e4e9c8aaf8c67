"""A trace in time: its good lines, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kvloop.benchmark.replay.trace import BadLine, Prefixes, Request, TimedLine, parse_request
from kvloop.benchmark.workloads.lines import Problems, read_lines
from kvloop.shared_cache.errors import ConfigError

FLAG = "--trace"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedTrace:
    """What a file holds."""

    requests: tuple[Request, ...]
    """In time order; those of one moment as they stand in the file."""
    parents: Mapping[int, int | None]
    """The id before each id; None before the first."""
    problems: Problems


def read_timed_trace(path: Path, *, is_strict: bool = False) -> TimedTrace:
    """Read the lines that are requests; raises ConfigError by line if strict, or if none is."""
    problems = Problems(flag=FLAG, path=path, is_strict=is_strict)
    prefixes, requests = Prefixes(), []
    for number, line in read_lines(FLAG, path):
        try:
            request = parse_request(line, TimedLine)
            prefixes.admit(request.pages)
        except BadLine as error:
            problems.add(f"line {number}", str(error))
        else:
            requests.append(request)
    if not requests:
        raise ConfigError(f"{FLAG} {path} has no good line; {problems.words or 'it is empty'}")
    requests.sort(key=lambda request: request.at_ms)
    return TimedTrace(requests=tuple(requests), parents=prefixes.parent, problems=problems)
