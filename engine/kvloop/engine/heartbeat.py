"""Heartbeats to routers: each address of a router's name gets its own, all the time.

One name may stand for several routers (a headless Service), which come and go. A router that
hangs must not delay what the others are told: they would think the node lost.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

log = logging.getLogger("kvloop.node")
_EVERY_S = 0.5
_RESOLVE_EVERY_S = 2.0
_RESOLVE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterAddress:
    """Where one router is told."""

    url: str
    """With the address in place of the name."""
    host: str
    """The name, for the Host header and TLS."""


Post = Callable[[RouterAddress], Awaitable[None]]
"""Tell it once; what goes wrong on the way there is an aiohttp error or a timeout."""
Resolve = Callable[[str], Awaitable[list[RouterAddress]]]


async def resolve(url: str) -> list[RouterAddress]:
    """All addresses of a router's URL; raises OSError where the name is not known."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    found = await asyncio.to_thread(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    addresses = sorted({str(info[4][0]) for info in found})
    name = parts.netloc.rpartition("@")[2]
    return [
        RouterAddress(url=f"{parts.scheme}://{_bracketed(address)}:{port}", host=name)
        for address in addresses
    ]


class Heartbeats:
    """To all routers behind one URL; `run` ends when it is cancelled, and ends them."""

    def __init__(self, url: str, post: Post, resolve: Resolve = resolve) -> None:
        self._url, self._post, self._resolve = url, post, resolve
        self._tasks: dict[RouterAddress, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Tell each router twice a second; look for others every two seconds."""
        try:
            while True:
                await self._look()
                await asyncio.sleep(_RESOLVE_EVERY_S if self._tasks else _EVERY_S)
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def _look(self) -> None:
        """A name that cannot be resolved now keeps the addresses that it had."""
        try:
            async with asyncio.timeout(_RESOLVE_S):
                found = await self._resolve(self._url)
        except (OSError, TimeoutError) as error:
            log.debug("router %s: %s", self._url, error)
            return
        for address in set(self._tasks) - set(found):
            self._tasks.pop(address).cancel()
        for address in found:
            if address not in self._tasks or self._tasks[address].done():
                self._tasks[address] = asyncio.create_task(self._beat(address))

    async def _beat(self, address: RouterAddress) -> None:
        while True:
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                await self._post(address)
            await asyncio.sleep(_EVERY_S)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
