"""How long the server's nodes computed for each arm, by their own account."""

from __future__ import annotations

import json
import math
import re
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from kvloop.benchmark.arms import Arm, Segment
from kvloop.benchmark.results.document import SegmentResult
from kvloop.benchmark.sample import Failure, Sample

_STEP_SECONDS = re.compile(r"^kvloop_step_seconds_sum(?:\{[^}]*\})? (\S+)", re.MULTILINE)
_TIMEOUT_S = 5.0
_MAX_BYTES = 8 << 20
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Nodes are asked directly, as the router does."""
_UNREADABLE = (OSError, ValueError, HTTPException)
"""No answer, one that is no text or no JSON, one that is no HTTP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentSeconds:
    """Seconds of forward passes of all nodes while one segment ran."""

    arm: Arm
    step: int
    round: int
    seconds: float


class NodeSeconds:
    """A Listener that reads the nodes' metrics before and after each segment.

    It asks while no request is under way, and waits `_TIMEOUT_S` for each node at most. A segment
    for which a node did not answer, or began anew, is left out and named in `problems`.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        """`urls`: of the nodes' metrics, such as http://node:9000/metrics."""
        self.urls = tuple(urls)
        self._spent: list[SegmentSeconds] = []
        self._problems: dict[str, None] = {}
        self._before: float | None = None

    @property
    def spent(self) -> tuple[SegmentSeconds, ...]:
        """Of each segment that ended and could be read."""
        return tuple(self._spent)

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be read; each once."""
        return tuple(self._problems)

    def began(self, segment: Segment) -> None:
        self._before = self._read()

    def sent(self) -> None:
        pass

    def outcome(self, outcome: Sample | Failure) -> None:
        pass

    def ended(self, result: SegmentResult) -> None:
        before, self._before = self._before, None
        after = self._read()
        if before is None or after is None:
            return
        if after < before:
            self._problems["a node began anew during the run: its segment is not counted"] = None
            return
        self._spent.append(
            SegmentSeconds(
                arm=result.arm, step=result.step, round=result.round, seconds=after - before
            )
        )

    def _read(self) -> float | None:
        if not self.urls:
            return None
        with ThreadPoolExecutor(len(self.urls)) as pool:
            sums = list(pool.map(self._read_one, self.urls))
        known = [value for value in sums if value is not None]
        return math.fsum(known) if len(known) == len(sums) else None

    def _read_one(self, url: str) -> float | None:
        try:
            found = _STEP_SECONDS.findall(_get(url).decode())
        except _UNREADABLE as error:
            self._problems[f"cannot read {url}: {error}"] = None
            return None
        if not found:
            self._problems[f"{url} has no kvloop_step_seconds"] = None
            return None
        return math.fsum(map(float, found))


def find_metrics(server_url: str) -> tuple[str, ...]:
    """Of the nodes that a kvloop router names in /server_info; nothing from any other server."""
    try:
        info = json.loads(_get(f"{server_url.rstrip('/')}/server_info"))
    except _UNREADABLE:
        return ()
    nodes = info.get("nodes") if isinstance(info, dict) else None
    return tuple(_metrics_of(nodes)) if isinstance(nodes, list) else ()


def _metrics_of(nodes: Sequence[Any]) -> list[str]:
    ready = [node for node in nodes if isinstance(node, dict) and node.get("state") == "ready"]
    urls = [node.get("url") for node in ready]
    return [f"{url.rstrip('/')}/metrics" for url in urls if isinstance(url, str)]


def _get(url: str) -> bytes:
    with _OPENER.open(url, timeout=_TIMEOUT_S) as reply:
        body: bytes = reply.read(_MAX_BYTES)
    return body
