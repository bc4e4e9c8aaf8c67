"""What each client says, and how its answers are sampled. Pure; equal seeds give equal chats."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Literal

from kvloop.benchmark.workloads.words import WORDS
from kvloop.shared_cache.errors import ConfigError

Pace = Literal["at_once", "rounds"]
"""A client's next turn follows its answer at once, or when all chats have had their turn."""
CacheMode = Literal["on", "l3_only"]
_SPOKEN = (6, 18)
"""Things that a message asks about: about 30 to 60 tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatLoad:
    """Closed-loop clients that send text; fields are the command's flags."""

    chats: int = 200
    turns: int = 4
    at_once: int = 8
    """Requests in flight."""
    answer_tokens: tuple[int, int] = (64, 112)
    """Tokens of an answer, from and to; drawn for each."""
    natural_ends: bool = False
    """An answer may end before, where the model ends it."""
    temperature: float = 1.0
    pace: Pace = "at_once"
    cache: CacheMode = "on"
    """l3_only holds for turns 2 and on, and wants `rounds`: what is read must have been stored."""
    history: Literal["on", "off"] = "on"
    """off: the router tokenizes earlier answers anew."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("chats", "turns", "at_once"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be above 0")
        low, high = self.answer_tokens
        if not 1 <= low <= high:
            raise ConfigError(f"--answer must be LOW:HIGH with 1 <= LOW <= HIGH, got {low}:{high}")
        if self.cache == "l3_only" and self.pace != "rounds":
            raise ConfigError("--cache l3_only needs --pace rounds: L3 takes a moment to have it")

    def say(self, chat: int, turn: int) -> str:
        """The message of a chat's turn, both counted from 1."""
        draw = self._draw("say", chat, turn)
        things = ", the ".join(draw.choices(WORDS, k=draw.randint(*_SPOKEN)))
        return f"Chat {chat}, part {turn}: tell me a long story about the {things}."

    def max_tokens(self, chat: int, turn: int) -> int:
        """How long its answer may be, and is without `natural_ends`."""
        return self._draw("answer", chat, turn).randint(*self.answer_tokens)

    def body(self, chat: int, turn: int) -> dict[str, Any]:
        """The fields of a request beside its messages: how to sample, and what the cache does."""
        cache = self.cache if turn > 1 else "on"
        return {
            "max_tokens": self.max_tokens(chat, turn),
            "temperature": self.temperature,
            "seed": self._draw("sample", chat, turn).randrange(1 << 31),
            "ignore_eos": not self.natural_ends,
            # what the model goes on past is part of the text that the client sends back
            "skip_special_tokens": self.natural_ends,
            # read for the account only: the messages that are sent are text
            "return_token_ids": True,
            "kvloop": {"cache": cache, "history": self.history},
        }

    def _draw(self, *what: object) -> random.Random:
        # A string seed is hashed with SHA-512: the same on every machine.
        return random.Random(f"reuse/{self.seed}/{'/'.join(map(str, what))}")
