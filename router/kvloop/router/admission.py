"""How many prompts may be in flight, and what nodes call each."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Gauge

from kvloop.router.errors import ApiError

RETRY_AFTER_S = 1.0


class Admission:
    """Bounds the prompts in flight and gives each an id that nodes have not seen."""

    def __init__(self, max_in_flight: int, gauge: Gauge) -> None:
        self._max = max_in_flight
        self._gauge = gauge
        self._ids: set[str] = set()

    @contextmanager
    def admit(self, header_id: str, count: int) -> Iterator[list[str]]:
        """Ids for `count` prompts, held until exit; raises ApiError 429 when there is no room."""
        if len(self._ids) + count > self._max:
            raise ApiError(
                429,
                f"{len(self._ids)} prompts are in flight; the server takes {self._max}",
                code="too_many_requests",
                retry_after_s=RETRY_AFTER_S,
            )
        # clients repeat ids, also of requests that a node has not quite given up yet
        ids = [f"{header_id}-{secrets.token_hex(4)}" for _ in range(count)]
        self._ids.update(ids)
        self._gauge.set(len(self._ids))
        try:
            yield ids
        finally:
            self._ids.difference_update(ids)
            self._gauge.set(len(self._ids))
