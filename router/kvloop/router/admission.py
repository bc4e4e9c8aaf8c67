"""How many prompts may be in flight, and what each is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Gauge

from kvloop.router.errors import ApiError

RETRY_AFTER_S = 1.0


class Admission:
    """Bounds the prompts in flight and gives each an id that no other in flight has."""

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
        names = [header_id] if count == 1 else [f"{header_id}-{n}" for n in range(count)]
        ids = [self._unused(name) for name in names]
        self._gauge.set(len(self._ids))
        try:
            yield ids
        finally:
            self._ids.difference_update(ids)
            self._gauge.set(len(self._ids))

    def _unused(self, name: str) -> str:
        """Clients may repeat an id while it is in flight; nodes must not confuse the two."""
        candidate, number = name, 2
        while candidate in self._ids:
            candidate, number = f"{name}~{number}", number + 1
        self._ids.add(candidate)
        return candidate
