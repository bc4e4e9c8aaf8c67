"""Starts the parts, waits until they are ready, notices when one dies, stops them all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import aiohttp

from kvloop.cli.up.child import Child
from kvloop.cli.up.plan import Part

POLL_S = 0.1
STOP_DEADLINE_S = 45.0
"""Nodes end running requests (5 s), drain (20 s) and close their stores first."""
_LOG_LINES_SHOWN = 15


class PartFailed(Exception):
    """A part died or was not ready in time; the message has the end of its log."""


Report = Callable[[Part, Child, bool], None]
"""Told of each part, its process and whether it is ready, on every look."""


class Supervisor:
    """Owns the child processes; `stop` leaves none, whatever happened before."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._children: list[tuple[Part, Child]] = []

    async def start(self, parts: Sequence[Part], deadline_s: float, report: Report) -> None:
        """Start all and return when each is ready; raises PartFailed."""
        deadline = time.monotonic() + deadline_s
        timeout = aiohttp.ClientTimeout(total=2)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as http:
            for first in (True, False):
                wave = [part for part in parts if part.starts_first is first]
                await self._start_wave(wave, http, deadline, report)

    async def _start_wave(
        self, parts: list[Part], http: aiohttp.ClientSession, deadline: float, report: Report
    ) -> None:
        for part in parts:
            self._children.append((part, Child(part.name, part.argv, self._log(part))))
        waiting = [pair for pair in self._children if pair[0] in parts]
        while waiting:
            self.check()
            ready = await asyncio.gather(*(_is_ready(part, child, http) for part, child in waiting))
            for (part, child), is_ready in zip(waiting, ready, strict=True):
                report(part, child, is_ready)
            waiting = [pair for pair, done in zip(waiting, ready, strict=True) if not done]
            if waiting and time.monotonic() > deadline:
                raise PartFailed(_too_late(waiting))
            await asyncio.sleep(POLL_S if waiting else 0)

    def _log(self, part: Part) -> Path:
        return self._log_dir / f"{part.name}.log"

    def check(self) -> None:
        """Raise PartFailed if a part has ended."""
        for _, child in self._children:
            status = child.exit_status()
            if status is not None:
                raise PartFailed(f"{child.name} {describe_exit(status)}\n{describe_log(child)}")

    async def watch(self) -> None:
        """Run until a part dies, then raise PartFailed."""
        while True:
            self.check()
            await asyncio.sleep(POLL_S)

    async def stop(self, deadline_s: float = STOP_DEADLINE_S) -> None:
        """SIGTERM to all, last started first, but to what others store in only once these have
        ended; SIGKILL to the groups of those left at the deadline."""
        end = time.monotonic() + deadline_s
        try:
            for is_first in (False, True):
                wave = [child for part, child in self._children if part.starts_first is is_first]
                for child in reversed(wave):
                    child.terminate()
                while time.monotonic() < end and _num_running(wave):
                    await asyncio.sleep(POLL_S)
        finally:  # a second Ctrl-C cuts the wait short
            for _, child in self._children:
                child.kill_group()
            self._children.clear()


def _num_running(children: Sequence[Child]) -> int:
    return sum(child.exit_status() is None for child in children)


async def _is_ready(part: Part, child: Child, http: aiohttp.ClientSession) -> bool:
    if part.ready_line is not None:
        return child.log_has(part.ready_line)
    assert part.ready_url is not None
    try:
        async with http.get(part.ready_url) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


def describe_exit(status: int) -> str:
    """In words: `exited with status 1`, `was killed by signal 9`."""
    return f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"


def describe_log(child: Child) -> str:
    """The end of a part's log and where the rest is."""
    lines = child.last_lines(_LOG_LINES_SHOWN) or ["(nothing)"]
    return "\n".join([f"the end of {child.log}:", *(f"  {line}" for line in lines)])


def _too_late(waiting: list[tuple[Part, Child]]) -> str:
    names = ", ".join(part.name for part, _ in waiting)
    logs = "\n".join(describe_log(child) for _, child in waiting)
    return f"not ready in time: {names} (raise --ready-timeout-s on a slow machine)\n{logs}"
