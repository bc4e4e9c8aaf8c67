"""Holds the chats of a load against a running server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import aiohttp

from kvloop.benchmark.driver.api import Exchange, ask
from kvloop.benchmark.driver.bad_answer import BadAnswer
from kvloop.benchmark.driver.body import build_body
from kvloop.benchmark.driver.target import Target
from kvloop.benchmark.reuse.load import ChatLoad
from kvloop.benchmark.reuse.turn import Turn
from kvloop.benchmark.sample import Failure, parse_sources

Settle = Callable[[], Awaitable[None]]
OnOutcome = Callable[[Turn | Failure], None]


@dataclass(slots=True, kw_only=True)
class Chats:
    """One run of a load; the target's content is text."""

    http: aiohttp.ClientSession
    target: Target
    load: ChatLoad
    settle: Settle
    """Awaited between two rounds: returns when all that was generated has been stored."""
    salt: str = ""
    """`cache_salt` of the requests; empty: none."""
    timeout_s: float = 300.0
    """Longest time for one answer."""
    on_outcome: OnOutcome = lambda _: None
    turns: list[Turn] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    duration_s: float = 0.0
    _histories: dict[int, list[dict[str, str]]] = field(default_factory=dict)

    async def hold(self) -> None:
        """All turns of all chats; a failed turn ends its chat."""
        self._histories = {chat: [] for chat in range(1, self.load.chats + 1)}
        began_at = time.monotonic()
        if self.load.pace == "rounds":
            await self._hold_rounds()
        else:
            await self._each(self._hold_one)
        self.duration_s = time.monotonic() - began_at

    async def _hold_rounds(self) -> None:
        for number in range(1, self.load.turns + 1):
            if number > 1:
                await self.settle()
            await self._each(partial(self._turn, number))

    async def _hold_one(self, chat: int) -> None:
        for number in range(1, self.load.turns + 1):
            await self._turn(number, chat)

    async def _each(self, work: Callable[[int], Awaitable[None]]) -> None:
        """Do it for every chat, `at_once` at a time."""
        room = asyncio.Semaphore(self.load.at_once)

        async def one(chat: int) -> None:
            async with room:
                await work(chat)

        async with asyncio.TaskGroup() as tasks:
            for chat in self._histories:
                tasks.create_task(one(chat))

    async def _turn(self, number: int, chat: int) -> None:
        history = self._histories[chat]
        if len(history) != 2 * (number - 1):
            return  # an earlier turn has failed
        history.append({"role": "user", "content": self.load.say(chat, number)})
        length = self.load.max_tokens(chat, number)
        body = build_body(self.target, history, output_length=length, salt=self.salt)
        body |= self.load.body(chat, number)
        try:
            exchange = await ask(self.http, self.target, body, timeout_s=self.timeout_s)
            turn = parse_turn(chat, number, exchange)
        except BadAnswer as error:
            failure = Failure(conversation=chat, turn=number, kind=error.kind, message=str(error))
            self.failures.append(failure)
            self.on_outcome(failure)
            return
        history.append({"role": "assistant", "content": exchange.answer.text})
        self.turns.append(turn)
        self.on_outcome(turn)


def parse_turn(chat: int, number: int, exchange: Exchange) -> Turn:
    """What an answer says of itself; raises BadAnswer where it lacks what the account needs."""
    answer, usage = exchange.answer, exchange.usage
    sources = parse_sources(usage)
    if sources is None:
        raise BadAnswer("no_kvloop_usage", "usage.kvloop is missing: is this kvloop's router?")
    if len(answer.prompt_ids) != usage.get("prompt_tokens"):
        raise BadAnswer("no_token_ids", "the prompt's token ids are missing (return_token_ids)")
    kvloop: dict[str, Any] = usage["kvloop"]
    return Turn(
        chat=chat,
        turn=number,
        prompt_ids=answer.prompt_ids,
        answer_ids=answer.ids,
        completion_tokens=usage["completion_tokens"],
        sources=sources,
        prefill_node=kvloop.get("prefill_node"),
        decode_node=kvloop.get("decode_node"),
        fallback=kvloop.get("fallback"),
        ttft_s=exchange.ttft_s,
        itl_s=answer.gaps(),
    )
