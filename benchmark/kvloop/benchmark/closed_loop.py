"""Runs a workload against a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp

from kvloop.benchmark.api import Exchange, Target, ask
from kvloop.benchmark.conversation import new_conversation
from kvloop.benchmark.report import Report
from kvloop.benchmark.sample import Failure, Sample, parse_sources
from kvloop.benchmark.stream import BadAnswer
from kvloop.benchmark.workload import Workload

OnOutcome = Callable[[Sample | Failure], None]


class Pacer:
    """Gives each request the time at which it may start."""

    def __init__(self, workload: Workload) -> None:
        self._gaps = workload.gaps_s()
        self._next_at = time.monotonic()

    async def wait(self) -> None:
        """Sleep until this request's time."""
        # Slots that nobody was ready for are lost: closed-loop clients do not catch up in bursts.
        self._next_at = max(self._next_at + next(self._gaps), time.monotonic())
        await asyncio.sleep(self._next_at - time.monotonic())


@dataclass(slots=True, kw_only=True)
class Driver:
    """One run of a workload."""

    http: aiohttp.ClientSession
    target: Target
    workload: Workload
    on_outcome: OnOutcome
    samples: list[Sample] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    async def run(self) -> Report:
        """Warm up, then hold every conversation; raises BadAnswer if the warm-up fails."""
        for number in range(self.workload.warmup):
            await ask(self.http, self.target, new_conversation(self.workload, -1 - number).say(1))
        started_at, start = datetime.now(UTC), time.monotonic()
        in_flight = asyncio.Semaphore(self.workload.max_in_flight or self.workload.clients)
        pacer = Pacer(self.workload)
        async with asyncio.TaskGroup() as clients:
            for client in range(self.workload.clients):
                clients.create_task(self._converse(client, in_flight, pacer))
        return Report(
            workload=self.workload,
            url=self.target.url,
            model=self.target.model,
            started_at=started_at.isoformat(timespec="seconds"),
            duration_s=time.monotonic() - start,
            samples=tuple(self.samples),
            failures=tuple(self.failures),
        )

    async def _converse(self, client: int, in_flight: asyncio.Semaphore, pacer: Pacer) -> None:
        conversation, reusable = new_conversation(self.workload, client), 0
        for turn in range(1, self.workload.turns + 1):
            prompt = conversation.say(turn)
            await pacer.wait()
            waiting_since = time.monotonic()
            try:
                async with in_flight:
                    exchange = await ask(self.http, self.target, prompt)
            except BadAnswer as error:
                # Without this answer the later turns would be another conversation.
                self._fail(client, turn, error)
                return
            sample = _sample(client, turn, waiting_since, reusable, exchange)
            conversation.hear(exchange.answer)
            # The last sampled token has no KV.
            reusable = sample.prompt_tokens + sample.completion_tokens - 1
            self.samples.append(sample)
            self.on_outcome(sample)

    def _fail(self, client: int, turn: int, error: BadAnswer) -> None:
        failure = Failure(conversation=client, turn=turn, kind=error.kind, message=str(error))
        self.failures.append(failure)
        self.on_outcome(failure)


def _sample(
    client: int, turn: int, waiting_since: float, reusable: int, exchange: Exchange
) -> Sample:
    usage, answer = exchange.usage, exchange.answer
    kvloop: Mapping[str, Any] = usage.get("kvloop") or {}
    return Sample(
        conversation=client,
        turn=turn,
        sent_at=exchange.sent_at,
        ended_at=exchange.ended_at,
        queued_s=exchange.sent_at - waiting_since,
        ttft_s=answer.arrivals[0][0] - exchange.sent_at,
        itl_s=answer.gaps(),
        prompt_tokens=usage.get("prompt_tokens", 0),
        completion_tokens=usage.get("completion_tokens", 0),
        reusable_tokens=reusable,
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
        sources=parse_sources(usage),
        fallback=kvloop.get("fallback"),
    )
