"""The one way by which measured requests reach the server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import aiohttp

from kvloop.benchmark.driver.api import Exchange, ask
from kvloop.benchmark.driver.bad_answer import BadAnswer
from kvloop.benchmark.driver.listener import Listener
from kvloop.benchmark.driver.options import DriveOptions
from kvloop.benchmark.driver.target import Target
from kvloop.benchmark.driver.watch import ServerWatch

_RETRY_AFTER_S = 1.0
"""Where a refusal does not say."""


class Gate:
    """Bounds the requests at the server, and asks again those that were told to come later."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        target: Target,
        options: DriveOptions,
        listener: Listener,
        watch: ServerWatch,
    ) -> None:
        self._http, self._target, self._options = http, target, options
        self._listener, self._watch = listener, watch
        most = options.max_in_flight
        self._room = contextlib.nullcontext() if most is None else asyncio.Semaphore(most)
        self.streams = 0
        self.most_streams = 0
        self.num_retries = 0
        self.streams_broken_off = 0

    async def ask(self, body: Mapping[str, Any]) -> Exchange:
        """Wait for room, send, read; raises BadAnswer."""
        async with self._room:
            await self._watch.passed()
            self._listener.sent()
            for left in range(self._options.retry_429, -1, -1):
                try:
                    return await self._ask_once(body)
                except BadAnswer as error:
                    if error.kind != "http_429" or not left:
                        raise
                    await self._wait_as_told(error)
        raise AssertionError("unreachable")

    async def _ask_once(self, body: Mapping[str, Any]) -> Exchange:
        self.streams += 1
        self.most_streams = max(self.most_streams, self.streams)
        try:
            exchange = await ask(
                self._http,
                self._target,
                body,
                timeout_s=self._options.timeout_s,
                stall_timeout_s=self._options.stall_timeout_s,
            )
        except BadAnswer as error:
            self._watch.note(error.kind)
            raise
        except asyncio.CancelledError:
            self.streams_broken_off += 1
            raise
        finally:
            self.streams -= 1
        self._watch.note(None)
        return exchange

    async def _wait_as_told(self, error: BadAnswer) -> None:
        self.num_retries += 1
        asked_s = _RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s
        await asyncio.sleep(min(asked_s, self._options.max_retry_after_s))
