"""Routers without nodes: chats whose answers a test makes up, over one store of records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from kvloop.router.history import History
from kvloop.router.history_recall import ChatMemory, Opening
from kvloop.router.history_record import Record, decode_record, encode_record, record_name
from kvloop.router.metrics import RouterMetrics
from kvloop.router.tokenizer import ChatTokenizer, TokenizerThreads

THREADS = TokenizerThreads(1)


class Shelf:
    """SharedRecords over a dict; reads raise `error`."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.error: Exception | None = None
        self.num_reads = 0

    async def ask(self, work: Callable[..., Any]) -> Any:
        return work(self.fetch)

    def fetch(self, digest: bytes, num_messages: int) -> Record | None:
        self.num_reads += 1
        if self.error is not None:
            raise self.error
        value = self.values.get(record_name(digest))
        return None if value is None else decode_record(digest, value, num_messages)

    def put(self, digest: bytes, make: Callable[[], Record]) -> None:
        self.values[record_name(digest)] = encode_record(digest, make())


class Router:
    """Opens chats and remembers answers as the chat endpoint does."""

    def __init__(
        self, tokenizer: ChatTokenizer, shelf: Shelf | None = None, max_tokens: int = 1_000_000
    ) -> None:
        self.tokenizer = tokenizer
        self.metrics = RouterMetrics()
        records: Any = shelf
        self.chats = ChatMemory(History(max_tokens), records, THREADS, self.metrics)

    def open(
        self,
        messages: Sequence[Any],
        seed: bytes | None = None,
        *,
        variables: dict[str, Any] | None = None,
        use_history: bool = True,
        use_storage: bool = True,
    ) -> Opening:
        return asyncio.run(
            self.chats.open(
                self.tokenizer,
                seed,
                messages,
                variables or {},
                use_history=use_history,
                use_storage=use_storage,
            )
        )

    def answer(
        self, messages: Sequence[Any], answer: Sequence[int], text: str | None = None, **how: Any
    ) -> list[int]:
        """Serve a turn; returns prompt and answer. `text`: as the client is shown it."""
        opening = self.open(messages, **how)
        shown = self.shown(answer) if text is None else text
        self.chats.remember(opening, shown, answer)
        return [*opening.prompt.ids, *answer]

    def shown(self, answer: Sequence[int]) -> str:
        return self.tokenizer.decode(answer, skip_special_tokens=True)

    def count(self, name: str, value: str) -> float:
        """Of `kvloop_<name>_total` where its only label has this value."""
        for metric in self.metrics.registry.collect():
            for sample in metric.samples:
                if sample.name == f"kvloop_{name}_total" and value in sample.labels.values():
                    return sample.value
        raise AssertionError(f"no series {name} {value}")


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
