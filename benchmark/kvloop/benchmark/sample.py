"""What one request of a benchmark showed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvloop.benchmark.arms import Arm

SOURCES = ("computed", "device", "host", "storage", "transfer_skipped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the prompt's tokens came from, from servers that say so (`usage.kvloop`)."""

    computed: int = 0
    device: int = 0
    host: int = 0
    storage: int = 0
    transfer_skipped: int = 0
    storage_by_prefill: int = 0
    storage_by_decode: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One answered request. Times are seconds from the run's start, of one monotonic clock."""

    conversation: int
    turn: int
    """From 1; a branch counts on from its parent's."""
    sent_at: float
    ended_at: float
    queued_s: float
    """Wait for `--max-in-flight` before it was sent; no part of `ttft_s`."""
    ttft_s: float
    itl_s: tuple[float, ...]
    """One for each token after the first; tokens that arrive together share the gap."""
    prompt_tokens: int
    completion_tokens: int
    reusable_tokens: int
    """Tokens at the start of the prompt whose KV the turn before left behind."""
    cached_tokens: int | None
    """None: the server does not report it."""
    sources: Sources | None
    fallback: str | None
    arm: Arm = "on"
    step: int = 0
    round: int = 0
    late_s: float = 0.0
    """How much later than due it was sent; the driver's or the conversation's delay."""
    is_short: bool = False
    """Fewer tokens than were asked for."""
    answer_digest: str | None = None
    """Of the answer's ids or text: equal answers of two arms have equal digests."""

    @property
    def e2e_s(self) -> float:
        """From sending it to its end."""
        return self.ended_at - self.sent_at

    @property
    def tpot_s(self) -> float | None:
        """Mean time of each token after the first; None of a single token."""
        if self.completion_tokens < 2:
            return None
        return (self.e2e_s - self.ttft_s) / (self.completion_tokens - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One request that got no whole answer."""

    conversation: int
    turn: int
    kind: str
    """Short and countable, such as `http_429`, `connect`, `truncated`."""
    message: str
    arm: Arm = "on"
    step: int = 0
    round: int = 0
    at_s: float = 0.0
    """Seconds from the run's start."""


def parse_sources(usage: Mapping[str, Any]) -> Sources | None:
    """Read `usage.kvloop`; None from a server that has none."""
    block = usage.get("kvloop")
    if not isinstance(block, Mapping):
        return None
    writers = block.get("by_writer") or {}
    return Sources(
        **{name: int(block.get(name, 0)) for name in SOURCES},
        storage_by_prefill=int(writers.get("prefill", 0)),
        storage_by_decode=int(writers.get("decode", 0)),
    )
