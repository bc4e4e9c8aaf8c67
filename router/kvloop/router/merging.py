"""Several answers as one sequence of pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from kvloop.router.answers import Answer, Delta
from kvloop.router.errors import ApiError, UpstreamDied
from kvloop.shared_cache.wire import TokenLogprob

_MAX_WAITING = 64
"""Pieces held for a slow client."""

Piece = tuple[int, Delta | None]
"""Which answer, and its next delta; None when it has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A whole answer."""

    text: str
    ids: list[int]
    logprobs: list[TokenLogprob]


async def collect(answers: Sequence[Answer]) -> list[Collected]:
    """Read all answers to their ends; raises ApiError if one fails."""
    texts: list[list[str]] = [[] for _ in answers]
    logprobs: list[list[TokenLogprob]] = [[] for _ in answers]
    async with aclosing(merged(answers)) as pieces:
        async for index, delta in pieces:
            if delta is not None:
                texts[index].append(delta.text)
                logprobs[index] += delta.logprobs
    return [
        Collected(text="".join(text), ids=answer.ids, logprobs=entries)
        for text, answer, entries in zip(texts, answers, logprobs, strict=True)
    ]


async def merged(answers: Sequence[Answer]) -> AsyncGenerator[Piece]:
    """Pieces of all answers as they come; raises the first ApiError."""
    if len(answers) == 1:
        async for delta in answers[0].deltas():
            yield 0, delta
        yield 0, None
        return
    async for piece in _interleaved(answers):
        yield piece


async def _interleaved(answers: Sequence[Answer]) -> AsyncGenerator[Piece]:
    queue: asyncio.Queue[Piece | ApiError] = asyncio.Queue(_MAX_WAITING)
    tasks = [asyncio.create_task(_pump(i, a, queue)) for i, a in enumerate(answers)]
    try:
        left = len(tasks)
        while left:
            piece = await queue.get()
            if isinstance(piece, ApiError):
                raise piece
            yield piece
            left -= piece[1] is None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(index: int, answer: Answer, queue: asyncio.Queue[Piece | ApiError]) -> None:
    try:
        async for delta in answer.deltas():
            await queue.put((index, delta))
        await queue.put((index, None))
    except ApiError as error:
        await queue.put(error)
    except Exception as error:
        await queue.put(UpstreamDied(f"the answer could not be read: {error}"))
        raise
