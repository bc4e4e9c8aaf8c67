"""What the chat waits for: every node known to the router, every owed page written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import aiohttp

_DEADLINE_S = 30.0
_POLL_S = 0.2
_QUIET_LOOKS = 3  # a page may be between the engine and the queue on a single look
_CALL_TIMEOUT = aiohttp.ClientTimeout(total=5)


class WaitedInVain(Exception):
    """The deadline passed; says what was still missing."""


async def wait_until_registered(
    http: aiohttp.ClientSession, url: str, num_nodes: int, deadline_s: float = _DEADLINE_S
) -> None:
    """Return once the router at `url` has so many ready nodes; raises WaitedInVain."""
    deadline = time.monotonic() + deadline_s
    while True:
        nodes = (await _server_info(http, url))["nodes"]
        num_ready = sum(node["state"] == "ready" for node in nodes)
        if num_ready >= num_nodes:
            return
        if time.monotonic() > deadline:
            raise WaitedInVain(f"the router knows {num_ready} of {num_nodes} nodes")
        await asyncio.sleep(_POLL_S)


async def wait_until_written(
    http: aiohttp.ClientSession, urls: Sequence[str], deadline_s: float = _DEADLINE_S
) -> None:
    """Return once no node has pages left to write; raises WaitedInVain."""
    deadline = time.monotonic() + deadline_s
    quiet, pending = 0, 0
    while quiet < _QUIET_LOOKS:
        if time.monotonic() > deadline:
            raise WaitedInVain(f"{pending} pages were not written after {deadline_s:.0f} s")
        pending = sum(await asyncio.gather(*(_backlog(http, url) for url in urls)))
        quiet = quiet + 1 if pending == 0 else 0
        await asyncio.sleep(_POLL_S)


async def _backlog(http: aiohttp.ClientSession, url: str) -> int:
    info = await _server_info(http, url)
    return int(info["node"]["load"]["offload_backlog_pages"])


async def _server_info(http: aiohttp.ClientSession, url: str) -> Any:
    async with http.get(f"{url}/server_info", timeout=_CALL_TIMEOUT) as answer:
        answer.raise_for_status()
        return await answer.json()
