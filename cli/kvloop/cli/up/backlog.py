"""Waiting until the nodes have written every page they owe the shared cache."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import aiohttp

_DEADLINE_S = 30.0
_POLL_S = 0.2
_QUIET_LOOKS = 3  # a page may be between the engine and the queue on a single look


class BacklogStuck(Exception):
    """Pages were still waiting to be written at the deadline."""


async def wait_until_written(
    http: aiohttp.ClientSession, urls: Sequence[str], deadline_s: float = _DEADLINE_S
) -> None:
    """Return once no node has pages to offload; raises BacklogStuck."""
    deadline = time.monotonic() + deadline_s
    quiet, pending = 0, 0
    while quiet < _QUIET_LOOKS:
        if time.monotonic() > deadline:
            raise BacklogStuck(f"{pending} pages were not written after {deadline_s:.0f} s")
        pending = sum(await asyncio.gather(*(_backlog(http, url) for url in urls)))
        quiet = quiet + 1 if pending == 0 else 0
        await asyncio.sleep(_POLL_S)


async def _backlog(http: aiohttp.ClientSession, url: str) -> int:
    async with http.get(f"{url}/server_info", timeout=aiohttp.ClientTimeout(total=5)) as answer:
        answer.raise_for_status()
        body = await answer.json()
    return int(body["node"]["load"]["offload_backlog_pages"])
