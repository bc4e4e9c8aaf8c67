"""A multi-turn load: what each client says at each turn. Pure; equal seeds give equal words."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from kvloop.shared_cache.errors import ConfigError

Content = Literal["token-ids", "text"]

# Common words, about one token each in the vocabularies of today's models.
_TEXT = """
time people way day man thing woman life child world school state family student group
country problem hand part place case week company system program question work government
number night point home water room mother area money story fact month lot right study book
eye job word business issue side kind head house service friend father power hour game line
end member law car city community name president team minute idea body information back
"""
WORDS = tuple(_TEXT.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Closed-loop clients, each holding one conversation; fields are the command's flags."""

    clients: int = 4
    turns: int = 5
    request_length: int = 250
    """New tokens (or words, in text) that a client adds at each turn."""
    output_length: int = 32
    """Tokens of each answer; the model's own end is ignored."""
    rate: float | None = None
    """Requests a second that all clients together start at most; None: no limit."""
    max_in_flight: int | None = None
    """Requests that are at the server at once; None: as many as there are clients."""
    warmup: int = 1
    """Requests before the measured ones, of their own words, not counted."""
    content: Content = "token-ids"
    id_low: int = 1000
    id_high: int = 20000
    """Token ids are drawn from [id_low, id_high): ordinary words in common vocabularies."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("clients", "turns", "request_length", "output_length"):
            _require_positive(name, getattr(self, name))
        for name in ("rate", "max_in_flight"):
            if getattr(self, name) is not None:
                _require_positive(name, getattr(self, name))
        if self.warmup < 0:
            raise ConfigError(f"--warmup must be 0 or above, got {self.warmup}")
        if not 0 <= self.id_low < self.id_high:
            raise ConfigError(
                "--id-range must be LOW:HIGH with 0 <= LOW < HIGH, "
                f"got {self.id_low}:{self.id_high}"
            )

    @property
    def num_requests(self) -> int:
        """Measured requests, if none fails."""
        return self.clients * self.turns

    def new_ids(self, client: int, turn: int) -> list[int]:
        """Token ids that `client` adds at `turn`; negative clients are for warming up."""
        draw = self._random(client, turn)
        return [draw.randrange(self.id_low, self.id_high) for _ in range(self.request_length)]

    def new_text(self, client: int, turn: int) -> str:
        """Words that `client` adds at `turn`."""
        return " ".join(self._random(client, turn).choices(WORDS, k=self.request_length))

    def gaps_s(self) -> Iterator[float]:
        """Seconds between the starts of requests: a Poisson stream of `rate`."""
        draw = self._random("gaps", 0)
        while True:
            yield draw.expovariate(self.rate) if self.rate is not None else 0.0

    def _random(self, *what: object) -> random.Random:
        # A string seed is hashed with SHA-512: the same on every machine.
        return random.Random(f"{self.seed}/{'/'.join(map(str, what))}")


def _require_positive(name: str, value: float) -> None:
    if value <= 0:
        raise ConfigError(f"--{name.replace('_', '-')} must be above 0, got {value}")
