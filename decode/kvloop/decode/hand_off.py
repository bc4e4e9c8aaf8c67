"""One attempt to receive a prompt's KV: what has arrived, whether it is right, when to give up."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from kvloop.shared_cache.errors import TransferError
from kvloop.shared_cache.wire import PrefillCandidate, PrefillDone, Pushed

Checksum = Callable[[int, list[int]], int]
"""(layer, device pages) to xxh3_64 of their bytes."""


class HandOffTrace(msgspec.Struct, frozen=True, kw_only=True):
    """How one hand-off went, for `/kvloop/hand_offs`; times are CLOCK_MONOTONIC of this machine."""

    request_id: str
    prefill_node: str
    pages: int
    bytes: int
    bytes_before_last_layer: int
    """Received before prefill had computed the last layer (both clocks must be one machine's)."""
    asked_at: float
    first_layer_at: float
    last_layer_computed_at: float
    done_at: float


class HandOffFailure(msgspec.Struct, frozen=True):
    """An attempt that was given up, for /server_info."""

    request_id: str
    prefill_node: str
    reason: str
    status: int | None = None
    """Of a refusal."""


@dataclass(slots=True, kw_only=True)
class HandOff:
    """State of an attempt; `pages` are what was offered to the sender."""

    attempt: str
    candidate: PrefillCandidate
    first_page: int
    pages: list[int]
    num_layers: int
    page_bytes: int
    asked_at: float = field(default_factory=time.monotonic)
    heard_at: float = field(default_factory=time.monotonic)
    _arrived: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Pages whose bytes are right, by layer."""
    _received: list[tuple[float, int]] = field(default_factory=list)

    def is_stalled(self, now: float, stall_s: float) -> bool:
        """Nothing was heard of the attempt for too long."""
        return now - self.heard_at > stall_s

    def take(self, pushed: Pushed, checksum: Checksum, received_at: float) -> None:
        """Check one layer's pages; raises TransferError when their bytes are not what was sent."""
        start = pushed.first - self.first_page
        pages = self.pages[start : start + pushed.count]
        if start < 0 or len(pages) != pushed.count or not 0 <= pushed.layer < self.num_layers:
            raise TransferError(f"layer {pushed.layer} pages {pushed.first}+{pushed.count} unasked")
        if checksum(pushed.layer, pages) != pushed.checksum:
            raise TransferError(f"checksum of layer {pushed.layer} does not match")
        arrived = self._arrived[pushed.layer]
        if not arrived.isdisjoint(pages):
            raise TransferError(f"layer {pushed.layer} pages {pushed.first}+{pushed.count} twice")
        arrived.update(pages)
        self._received.append((received_at, 2 * self.page_bytes * pushed.count))

    def finish(self, request_id: str, done: PrefillDone, received_at: float) -> HandOffTrace:
        """All has been said to be sent; raises TransferError when a page of a layer is missing."""
        for layer in range(self.num_layers):
            num_pages = len(self._arrived[layer])
            if num_pages != len(self.pages):
                raise TransferError(f"layer {layer}: {num_pages} of {len(self.pages)} pages came")
        return HandOffTrace(
            request_id=request_id,
            prefill_node=self.candidate.url,
            pages=len(self.pages),
            bytes=sum(size for _, size in self._received),
            bytes_before_last_layer=sum(s for at, s in self._received if at < done.last_layer_at),
            asked_at=self.asked_at,
            first_layer_at=self._received[0][0],
            last_layer_computed_at=done.last_layer_at,
            done_at=received_at,
        )
