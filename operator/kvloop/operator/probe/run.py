"""One probe: the shell over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from kvloop.operator.errors import NodeError
from kvloop.operator.nodes.answers import CanaryReport, Stage
from kvloop.operator.nodes.client import NodeClient
from kvloop.operator.probe.chat import Message, Turn, first_turn, say, second_turn
from kvloop.operator.probe.counters import Counters, read_counters
from kvloop.operator.probe.judge import judge, report, unanswered

ANSWER_PAGES = 4
_LOOK_AGAIN_S = 1.0
_UNCOUNTED_S = 5.0
"""Decode's time to store, where it does not count what it stores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is probed."""

    router: str
    """URL; so are those of the nodes."""
    model: str
    page_size: int
    prefills: Sequence[str] = ()
    decodes: Sequence[str] = ()
    has_storage: bool = True


async def run_probe(
    target: Target, *, timeout_s: float, clock: float | None = None
) -> CanaryReport:
    """Takes `timeout_s` and a scrape of the nodes at most; never raises for what it looks at."""
    started_at, begun = time.time(), time.monotonic()
    async with aiohttp.ClientSession() as http, NodeClient() as client:
        stages = await _Probe(target, http, client, begun + timeout_s).run()
    return report(stages, started_at=started_at, seconds=time.monotonic() - begun)


class _Probe:
    def __init__(
        self, target: Target, http: aiohttp.ClientSession, client: NodeClient, ends_at: float
    ) -> None:
        self._target = target
        self._http = http
        self._client = client
        self._ends_at = ends_at

    async def run(self) -> list[Stage]:
        before = await self._counters()
        chat = first_turn(self._target.page_size)
        try:
            first = await self._say(chat, ANSWER_PAGES * self._target.page_size)
        except NodeError as error:
            return unanswered(str(error))
        after, second, fault = await self._counters(), None, ""
        if self._target.has_storage:
            after = await self._settled(before)
            try:
                second = await self._say(second_turn(chat, first.text), 1)
            except NodeError as error:
                fault = str(error)
        return judge(
            first,
            second,
            before,
            after,
            page_size=self._target.page_size,
            has_storage=self._target.has_storage,
            fault=fault,
        )

    async def _say(self, chat: Sequence[Message], max_tokens: int) -> Turn:
        return await say(
            self._http,
            self._target.router,
            self._target.model,
            chat,
            max_tokens=max_tokens,
            timeout_s=max(1.0, self._left_s),
        )

    async def _settled(self, before: Counters) -> Counters:
        """Until decode stores no more; it has half of what time is left, at most."""
        ends_at = time.monotonic() + self._left_s / 2
        quiet_at, last = time.monotonic() + _UNCOUNTED_S, await self._counters()
        while time.monotonic() < min(ends_at, quiet_at):
            await asyncio.sleep(_LOOK_AGAIN_S)
            now = await self._counters()
            has_begun = (now.backed_up or 0.0) > (before.backed_up or 0.0)
            if has_begun and now.backed_up == last.backed_up:
                return now
            last = now
        return last

    async def _counters(self) -> Counters:
        return await read_counters(self._client, self._target.prefills, self._target.decodes)

    @property
    def _left_s(self) -> float:
        return max(0.0, self._ends_at - time.monotonic())
