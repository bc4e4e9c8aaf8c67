"""A node's token events turned into text, cut at stop strings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Literal

from kvloop.router.detokenizer import Detokenizer
from kvloop.router.errors import UpstreamDied
from kvloop.router.jobs import Job
from kvloop.router.metrics import RouterMetrics
from kvloop.router.stop import StopMatcher
from kvloop.router.tokenizer import ChatTokenizer
from kvloop.router.upstream import NodeStream
from kvloop.shared_cache.wire import Finished, Started, TokenLogprob, Tokens

StopReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """The next piece of an answer; text lags behind ids while a character or stop is open."""

    text: str = ""
    ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Why an answer ended; `matched` is the stop string or stop token that did it."""

    reason: StopReason
    completion_tokens: int
    matched: str | int | None


class Answer:
    """One job's answer: iterate `deltas()` to its end, then read `end`. Close it in every case."""

    def __init__(
        self,
        job: Job,
        stream: NodeStream,
        started: Started,
        tokenizer: ChatTokenizer,
        metrics: RouterMetrics,
        learn: Callable[[list[int]], None],
    ) -> None:
        self.job = job
        self.started = started
        self.node = stream.node
        self.end: End | None = None
        self.ids: list[int] = []
        """Tokens of the answer so far; a stop token is not among them."""
        self._stream = stream
        self._metrics = metrics
        self._learn = learn
        self._clock = asyncio.get_running_loop().time
        self._last_token_at: float | None = None
        skip = job.skip_special_tokens
        self._detokenizer = Detokenizer(lambda ids: tokenizer.decode(ids, skip_special_tokens=skip))
        self._stops = StopMatcher(job.stops)

    async def deltas(self) -> AsyncIterator[Delta]:
        """Pieces in order; raises ApiError if the node fails."""
        while self.end is None:
            event = await self._stream.next()
            delta = self._take(event) if isinstance(event, Tokens) else self._finish(event)
            if self.end is not None:
                self._close_books(self.end)
            if delta.text or delta.ids:
                yield delta

    def close(self) -> None:
        """Stop the node if it is still at work. Idempotent."""
        self._stream.close()

    def _take(self, event: Tokens) -> Delta:
        self._time(len(event.ids))
        text = ""
        for position, token in enumerate(event.ids, 1):
            self.ids.append(token)
            cut = self._stops.push(self._detokenizer.push(token))
            text += cut.text
            if cut.matched is not None:
                self._stop_at(cut.matched)
                text += cut.matched if self.job.keep_stop else ""
                return _delta(event, position, text)
        return _delta(event, len(event.ids), text)

    def _finish(self, event: Finished) -> Delta:
        if event.reason == "abort":
            raise UpstreamDied("the decode node gave the request up")
        cut = self._stops.push(self._detokenizer.flush())
        if cut.matched is not None:
            self._stop_at(cut.matched)
            return Delta(text=cut.text + (cut.matched if self.job.keep_stop else ""))
        self.end = End(
            reason=event.reason,
            completion_tokens=event.completion_tokens,
            matched=event.stop_token,
        )
        return Delta(text=cut.text + self._stops.flush())

    def _stop_at(self, matched: str) -> None:
        self.end = End(reason="stop", completion_tokens=len(self.ids), matched=matched)
        self._stream.close()

    def _time(self, num_tokens: int) -> None:
        now = self._clock()
        if self._last_token_at is None:
            self._metrics.ttft.observe(now - self.job.arrived)
        elif num_tokens:
            self._metrics.itl.observe((now - self._last_token_at) / num_tokens)
        self._last_token_at = now

    def _close_books(self, end: End) -> None:
        self._metrics.e2e.observe(self._clock() - self.job.arrived)
        self._metrics.generated_tokens.inc(end.completion_tokens)
        self._learn(self.ids)


def _delta(event: Tokens, count: int, text: str) -> Delta:
    return Delta(text=text, ids=event.ids[:count], logprobs=event.logprobs[:count])
