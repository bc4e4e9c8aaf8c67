"""Notices that the server is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp

from kvloop.benchmark.driver.api import is_alive
from kvloop.benchmark.driver.bad_answer import LOST
from kvloop.benchmark.driver.options import DriveOptions

_BETWEEN_PROBES_S = 1.0


class ServerWatch:
    """Counts lost or silent requests in a row, over all conversations.

    After `give_up_after` the server is asked for anything at all. While it is, nothing is sent; if
    it stays silent for `probe_s`, `on_gone` is called with the reason, once.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        options: DriveOptions,
        on_gone: Callable[[str], None],
    ) -> None:
        self._http, self._url, self._options, self._on_gone = http, url, options, on_gone
        self._num_lost = 0
        self._probing: asyncio.Task[None] | None = None

    async def passed(self) -> None:
        """Wait while the server is probed."""
        if self._probing is not None:
            await asyncio.shield(self._probing)

    def note(self, kind: str | None) -> None:
        """A request failed by that kind; None: it was answered."""
        self._num_lost = self._num_lost + 1 if kind in LOST else 0
        if self._num_lost >= self._options.give_up_after and self._probing is None:
            self._probing = asyncio.create_task(self._probe())

    async def close(self) -> None:
        """Stop probing."""
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    async def _probe(self) -> None:
        until = time.monotonic() + self._options.probe_s
        while (left := until - time.monotonic()) > 0:
            if await is_alive(self._http, self._url, left):
                self._num_lost, self._probing = 0, None
                return
            await asyncio.sleep(min(_BETWEEN_PROBES_S, left))
        self._on_gone(
            f"the server was gone: {self._num_lost} requests in a row found no connection, lost it "
            f"or were met with silence, and nothing answered for {self._options.probe_s:g} s "
            "(--give-up-after, --probe-s); what was left was not sent"
        )
