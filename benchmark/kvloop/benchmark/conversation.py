"""One client's history, as token ids or as chat messages."""

from __future__ import annotations

from typing import Any, Protocol

from kvloop.benchmark.stream import StreamedAnswer
from kvloop.benchmark.workload import Workload


class Conversation(Protocol):
    """Grows by what the client says and what it is answered."""

    def say(self, turn: int) -> Any:
        """Add the client's words of `turn`; returns the prompt: the whole history."""

    def hear(self, answer: StreamedAnswer) -> None:
        """Add the answer."""


class IdConversation:
    """Exact token ids: nothing is tokenized twice."""

    def __init__(self, workload: Workload, client: int) -> None:
        self._workload, self._client = workload, client
        self._ids: list[int] = []

    def say(self, turn: int) -> list[int]:
        self._ids += self._workload.new_ids(self._client, turn)
        return list(self._ids)

    def hear(self, answer: StreamedAnswer) -> None:
        self._ids += answer.ids


class TextConversation:
    """Chat messages: the server applies its template."""

    def __init__(self, workload: Workload, client: int) -> None:
        self._workload, self._client = workload, client
        self._messages: list[dict[str, str]] = []

    def say(self, turn: int) -> list[dict[str, str]]:
        text = self._workload.new_text(self._client, turn)
        self._messages.append({"role": "user", "content": text})
        return list(self._messages)

    def hear(self, answer: StreamedAnswer) -> None:
        self._messages.append({"role": "assistant", "content": answer.text})


def new_conversation(workload: Workload, client: int) -> Conversation:
    """Of the workload's kind of content."""
    kind = TextConversation if workload.content == "text" else IdConversation
    return kind(workload, client)
