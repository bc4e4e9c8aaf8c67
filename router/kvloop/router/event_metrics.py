"""What the router counts of the nodes' KV events."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter


class EventMetrics:
    """Every series starts at 0."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._events = Counter(
            "kvloop_kv_events",
            "Pages that nodes said to have entered or left a tier; times that all of them left",
            ["kind"],
            registry=registry,
        )
        self._gaps = Counter(
            "kvloop_kv_events_gaps",
            "Gaps in a node's events: filled by its replay, or its pages were forgotten",
            ["repaired"],
            registry=registry,
        )
        for kind in ("stored", "removed", "cleared", "malformed"):
            self._events.labels(kind)
        for repaired in (True, False):
            self._gaps.labels(str(repaired).lower())

    def came(self, kind: str, num: int = 1) -> None:
        """So many pages (stored, removed) or events (cleared, malformed)."""
        self._events.labels(kind).inc(num)

    def gap(self, *, is_repaired: bool) -> None:
        """Messages of a node did not come."""
        self._gaps.labels(str(is_repaired).lower()).inc()
