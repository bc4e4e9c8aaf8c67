"""Chats by text with a model that thinks, and the pages of them that could be reused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from running import fetch

from kvloop.shared_cache.keys import page_keys

QUESTIONS = ("What is it?", "Why so?", "And then?", "Is that all?", "Who says so?")


@dataclass
class Turn:
    """One answer as the client got it."""

    prompt: list[int]
    ids: list[int]
    """Of the answer, less the token that ended it."""
    text: str
    sources: dict[str, Any]
    was_cut: bool
    """At its most tokens."""

    @property
    def computed(self) -> list[int]:
        """Tokens with KV: the last one sampled has none, be it the answer's or what ended it."""
        return self.prompt + (self.ids[:-1] if self.was_cut else self.ids)


@dataclass
class ThinkingChat:
    """Sends all that was said as text; reads the shared cache only."""

    url: str
    name: str
    system: str = ""
    turns: list[Turn] = field(default_factory=list)
    messages: list[dict[str, str]] = field(default_factory=list)

    def ask(self, max_tokens: int = 400, session: str | None = None) -> Turn:
        """The next turn; its sampling depends on the chat's name and the turn's number only."""
        number = len(self.turns)
        if self.system and not self.messages:
            self.messages.append({"role": "system", "content": self.system})
        question = f"{self.name}: {QUESTIONS[number % len(QUESTIONS)]}"
        self.messages.append({"role": "user", "content": question})
        body = {
            "messages": self.messages,
            "max_tokens": max_tokens,
            "temperature": 1.0,
            "seed": sum(map(ord, self.name)) * 100 + number,
            "return_token_ids": True,
            "kvloop": {"cache": "l3_only", **({"session": session} if session else {})},
        }
        status, reply = fetch(f"{self.url}/v1/chat/completions", body)
        assert status == 200, (status, reply)
        (choice,) = reply["choices"]
        turn = Turn(
            choice["prompt_token_ids"],
            choice["token_ids"],
            choice["message"]["content"],
            reply["usage"]["kvloop"],
            choice["finish_reason"] == "length",
        )
        self.turns.append(turn)
        self.messages.append({"role": "assistant", "content": turn.text})
        return turn


class FilledPages:
    """Keys of the full pages of all turns so far, prompts and answers."""

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._keys: set[bytes] = set()

    def add(self, turn: Turn) -> None:
        self._keys.update(page_keys(turn.computed, self._page_size))

    def reusable(self, turn: Turn) -> int:
        """Tokens of the leading full pages of its prompt that a turn before has filled."""
        keys = page_keys(turn.prompt, self._page_size)
        count = next((n for n, key in enumerate(keys) if key not in self._keys), len(keys))
        return count * self._page_size


def decode_pages(turns: Sequence[Turn], page_size: int) -> tuple[int, int]:
    """(full pages that decode completed, those of them that a later prompt repeats)."""
    filled = repeated = 0
    for number, turn in enumerate(turns):
        own = page_keys(turn.computed, page_size)[len(turn.prompt) // page_size :]
        later = {key for t in turns[number + 1 :] for key in page_keys(t.prompt, page_size)}
        filled += len(own)
        repeated += sum(key in later for key in own)
    return filled, repeated
