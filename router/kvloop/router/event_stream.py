"""One node's events, applied to the index in their order."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec

from kvloop.router.event_metrics import EventMetrics
from kvloop.router.prefix_index import PrefixIndex
from kvloop.shared_cache.kv_events import (
    MEDIA,
    BlockRemoved,
    BlockStored,
    Event,
    decode_batch,
)

_TIERS = {medium: tier for tier, medium in MEDIA.items()}


class EventStream:
    """Of one incarnation; what is lost for good makes the index forget the node's pages.

    A subscriber must not believe for ever what is gone: messages have numbers, so that a gap shows.
    """

    def __init__(self, incarnation: str, index: PrefixIndex, metrics: EventMetrics) -> None:
        self._incarnation, self._index, self._metrics = incarnation, index, metrics
        self._has_begun = False
        self.next = 0
        """The number of the message that is expected."""
        self.num_batches = 0
        self.num_gaps = 0
        """Those that no replay filled."""
        self.lag_s: float | None = None
        """Between the newest message's making and its arrival here, by both clocks."""

    def misses(self, number: int) -> bool:
        """Whether messages before this one have not come."""
        return number > self.next

    def take(self, number: int, payload: bytes) -> None:
        """Apply a message; all that could be had of those before it has been taken."""
        if number < self.next:
            return  # a replay brought it before
        if self.misses(number) and self._has_begun:
            self._lose()
        self._has_begun, self.next = True, number + 1
        self.num_batches += 1
        try:
            sent_at, events = decode_batch(payload)
            for event in events:
                self._apply(event)
        except (msgspec.DecodeError, ValueError, TypeError):
            self._metrics.came("malformed")
            self._lose()
            return
        self.lag_s = round(time.time() - sent_at, 3)

    def _lose(self) -> None:
        self.num_gaps += 1
        self._metrics.gap(is_repaired=False)
        self._index.forget(self._incarnation)

    def _apply(self, event: Event) -> None:
        if isinstance(event, BlockStored):
            tier = _TIERS.get(event.medium or "")
            if tier is not None:
                self._index.stored(self._incarnation, _keys(event.block_hashes), tier)
                self._metrics.came("stored", len(event.block_hashes))
        elif isinstance(event, BlockRemoved):
            tier = _TIERS.get(event.medium or "")
            if tier is not None or event.medium is None:
                self._index.removed(self._incarnation, _keys(event.block_hashes), tier)
                self._metrics.came("removed", len(event.block_hashes))
        else:
            self._index.forget(self._incarnation)
            self._metrics.came("cleared")


def _keys(hashes: Sequence[bytes | int]) -> list[bytes]:
    """Pages' keys; raises TypeError for integers, which name none."""
    for name in hashes:
        if not isinstance(name, bytes):
            raise TypeError("the router reads page keys, not integers")
    return [name for name in hashes if isinstance(name, bytes)]
