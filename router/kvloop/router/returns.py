"""Which sessions come back with a next turn: counted by tenant, system prompt and depth.

A turn's key leaves answers out, since clients cut an answer's thinking before they send it back.
Of two sessions that were asked the same so far, either may count as the one that came back: both
are of one kind. A turn that answers none of ours (another router had the session) counts as one
that came back, so what is not seen makes sessions look more lasting, and more of them is stored.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kvloop.router.tokenizer import Message

WORTH_STORING = 0.2
"""Probability of a next turn from which on an answer's pages are stored."""
MIN_SESSIONS = 20
"""Sessions of a kind whose end must be known before it is judged."""
MAX_DEPTH = 3
"""Turns from this one on are of one kind."""

_MEMORY = 200
"""Sessions after which an old one weighs 1/e."""
_MAX_CLOSED_AT_ONCE = 1000
"""Old turns that one call closes, so that none takes long."""

Kind = tuple[str, bytes, int]
"""Tenant, digest of the system prompt, and the turn's number up to MAX_DEPTH."""


class Mark(NamedTuple):
    """One turn of a session."""

    kind: Kind
    key: bytes
    """Of all that was asked up to it."""


class Turn(NamedTuple):
    """What a request shows of its session."""

    this: Mark
    before: Mark | None
    """None: this is the first."""


def turn_of(tenant: str, seed: bytes | None, messages: Sequence[Message]) -> Turn:
    """Reads the whole chat once; the text is not kept."""
    asked = hashlib.blake2b(seed or b"", digest_size=16)
    system = hashlib.blake2b(digest_size=16)
    depth, asked_before = 1, b""
    for message in messages:
        if message["role"] == "assistant":
            depth, asked_before = depth + 1, asked.digest()
            continue
        data = _lined(message)
        asked.update(data)
        if message["role"] == "system":
            system.update(data)

    def mark(depth: int, digest: bytes) -> Mark:
        kind = (tenant, system.digest(), min(depth, MAX_DEPTH))
        return Mark(kind, digest + depth.to_bytes(8, "little"))

    before = mark(depth - 1, asked_before) if depth > 1 else None
    return Turn(mark(depth, asked.digest()), before)


def _lined(message: Message) -> bytes:
    fields = [str(message.get(field, "")).encode() for field in ("role", "name", "content")]
    return b"".join(len(data).to_bytes(8, "little") + data for data in fields)


@dataclass(slots=True)
class _Tally:
    """Sessions of one kind whose outcome is known; old ones fade."""

    over: float = 0.0
    """That came back or did not within the horizon."""
    came_back: float = 0.0

    def end(self) -> None:
        fade = 1 - 1 / _MEMORY
        self.over = self.over * fade + 1
        self.came_back *= fade

    @property
    def probability(self) -> float | None:
        """Laplace's estimate; None while too little was seen."""
        if self.over < MIN_SESSIONS:
            return None
        return min((self.came_back + 1) / (self.over + 2), 1.0)


class _Open(NamedTuple):
    kind: Kind
    expected: bool | None
    until: float


class Returns:
    """Judges turns by those before; bounded memory. For one thread, with its clock passed in."""

    def __init__(
        self,
        horizon_s: float,
        seen: Callable[[bool | None, bool], None] = lambda expected, came_back: None,
        *,
        max_open: int = 100_000,
        max_kinds: int = 4096,
    ) -> None:
        """`seen(expected, came_back)` hears of every turn of ours whose outcome is known."""
        self._horizon_s = horizon_s
        self._seen = seen
        self._max_open = max_open
        self._max_kinds = max_kinds
        self._open: OrderedDict[bytes, _Open] = OrderedDict()
        self._tallies: OrderedDict[Kind, _Tally] = OrderedDict()

    def asked(self, turn: Turn, now: float) -> bool | None:
        """A turn begins: whether a next one is expected; None: too little was seen."""
        self._close_old(now)
        if turn.before is not None:
            self._came_back(*turn.before)
        probability = self._tally(turn.this.kind).probability
        return None if probability is None else probability >= WORTH_STORING

    def answered(self, turn: Turn, expected: bool | None, now: float) -> None:
        """The turn has its answer; `expected` is what was told to the decode node."""
        self._close_old(now)
        if self._open.pop(turn.this.key, None) is not None:
            self._tally(turn.this.kind).end()  # the two look alike: one of them may still come back
        self._open[turn.this.key] = _Open(turn.this.kind, expected, now + self._horizon_s)
        if len(self._open) > self._max_open:
            self._open.popitem(last=False)

    def __len__(self) -> int:
        """Turns whose outcome is open."""
        return len(self._open)

    def _came_back(self, kind: Kind, key: bytes) -> None:
        known = self._open.pop(key, None)
        tally = self._tally(kind)
        if known is not None:
            tally.end()
            self._seen(known.expected, True)
        tally.came_back = min(tally.came_back + 1, _MEMORY)

    def _close_old(self, now: float) -> None:
        for _ in range(min(len(self._open), _MAX_CLOSED_AT_ONCE)):
            key, oldest = next(iter(self._open.items()))
            if oldest.until > now:
                return
            del self._open[key]
            self._tally(oldest.kind).end()
            self._seen(oldest.expected, False)

    def _tally(self, kind: Kind) -> _Tally:
        tally = self._tallies.setdefault(kind, _Tally())
        self._tallies.move_to_end(kind)
        if len(self._tallies) > self._max_kinds:
            self._tallies.popitem(last=False)
        return tally
