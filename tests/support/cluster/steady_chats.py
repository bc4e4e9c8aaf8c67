"""Chats that go on while a cluster is changed; every one must be answered."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import aiohttp

THINK_S = 0.5
"""Between two turns: the machine has other work, too."""
ANSWER_S = 400.0
"""For one answer: the machine may be busy."""


@dataclass
class SteadyChats:
    """While entered, `chatters` hold conversations of a few turns, every second one streamed."""

    url: str
    chatters: int = 2
    turns: int = 3
    faults: list[str] = field(default_factory=list)
    answered: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> SteadyChats:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.finish()

    def finish(self) -> None:
        """Let the answers under way come to their end."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(ANSWER_S + 30)

    def wait_more(self, count: int, within_s: float = 300) -> None:
        """Until so many more have been answered: the load really goes on."""
        until, deadline = self.answered + count, time.monotonic() + within_s
        while self.answered < until:
            assert time.monotonic() < deadline, (self.answered, until, self.faults)
            time.sleep(0.2)

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await asyncio.gather(*(self._chat(session, n) for n in range(self.chatters)))

    async def _chat(self, session: aiohttp.ClientSession, number: int) -> None:
        talk = 0
        while not self._stop.is_set():
            talk += 1
            opening = f"Chatter {number}, talk {talk}: tell me a story of a fox and {talk} hens."
            messages = [{"role": "user", "content": opening}]
            for turn in range(self.turns):
                if self._stop.is_set():
                    return
                try:
                    text = await self._answer(session, messages, is_stream=turn % 2 == 1)
                except Exception as error:
                    self.faults.append(f"{time.strftime('%X')} {type(error).__name__}: {error}")
                    break
                self.answered += 1
                messages.append({"role": "assistant", "content": text})
                messages.append({"role": "user", "content": "Go on."})
                await asyncio.sleep(THINK_S)

    async def _answer(
        self, session: aiohttp.ClientSession, messages: list[dict[str, str]], *, is_stream: bool
    ) -> str:
        body = {
            "messages": messages,
            "max_tokens": 20,
            "temperature": 0,
            "stream": is_stream,
            "ignore_eos": True,
        }
        async with session.post(f"{self.url}/v1/chat/completions", json=body) as reply:
            raw = await reply.text()
            assert reply.status == 200, f"HTTP {reply.status}: {raw[:300]}"
        return _streamed(raw) if is_stream else _whole(json.loads(raw))


def _whole(answer: dict[str, Any]) -> str:
    choice = answer["choices"][0]
    assert choice["finish_reason"] in ("stop", "length"), answer
    return str(choice["message"]["content"])


def _streamed(raw: str) -> str:
    lines = [line.removeprefix("data: ") for line in raw.splitlines() if line.startswith("data: ")]
    assert lines and lines[-1] == "[DONE]", raw[-300:]
    events = [json.loads(line) for line in lines[:-1]]
    assert not [event for event in events if "error" in event], raw[-300:]
    choices = [event["choices"][0] for event in events if event.get("choices")]
    assert choices[-1]["finish_reason"] in ("stop", "length"), raw[-300:]
    return "".join(choice["delta"].get("content") or "" for choice in choices)
