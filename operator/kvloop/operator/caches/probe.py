"""What a SharedCache's own parts say over the network; each call has a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol, TypeVar

import aiohttp

from kvloop.operator.caches.seen import MasterView
from kvloop.operator.nodes.body import read_body
from kvloop.operator.nodes.metrics import parse_metrics

T = TypeVar("T")
_LARGEST = 4 << 20
_TRIES, _PAUSE_S = 3, 0.5
"""A busy machine is late at times; a master that is gone refuses at once."""


class Probe(Protocol):
    """Never raises for what does not answer."""

    async def master(self, host: str, port: int) -> MasterView | None:
        """Of a Mooncake master's metrics port; None where it does not answer as one."""

    async def why_unreachable(self, host: str, port: int) -> str:
        """Empty where something listens."""


class NetworkProbe:
    """From where the operator runs."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s

    async def master(self, host: str, port: int) -> MasterView | None:
        """See `Probe`."""
        for _ in range(_TRIES):
            try:
                return await self._in_time(self._master(_url(host, port)))
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
                await asyncio.sleep(_PAUSE_S)
        return None

    async def why_unreachable(self, host: str, port: int) -> str:
        """See `Probe`."""
        try:
            _, writer = await self._in_time(asyncio.open_connection(host, port))
        except TimeoutError:
            return f"no answer from {host}:{port} in {self._timeout_s:g} s"
        except (OSError, ValueError, OverflowError) as error:  # no name, or no port, at all
            return f"{host}:{port}: {getattr(error, 'strerror', None) or error}"
        writer.close()
        return ""

    async def _master(self, url: str) -> MasterView:
        async with aiohttp.ClientSession() as session:
            role = (await _text(session, f"{url}/role")).strip()
            samples = parse_metrics(await _text(session, f"{url}/metrics"))
        return MasterView(
            leads=role == "leader",
            capacity_bytes=int(samples.sum("master_total_capacity_bytes") or 0),
            used_bytes=int(samples.sum("master_allocated_bytes") or 0),
        )

    async def _in_time(self, work: Awaitable[T]) -> T:
        async with asyncio.timeout(self._timeout_s):
            return await work


async def _text(session: aiohttp.ClientSession, url: str) -> str:
    async with session.get(url) as answer:
        if answer.status != 200:
            raise ValueError(f"{url} answered {answer.status}")
        return (await read_body(answer, _LARGEST)).decode(errors="replace")


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
