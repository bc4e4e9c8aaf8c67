"""What the operator counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

STATUSES = ("True", "False", "Unknown")
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """One registry for each run, so that tests share nothing."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.reconciles = Counter(
            "kvloop_operator_reconcile",
            "Looks at resources; result: ok, error, timeout or crash.",
            ("kind", "result"),
            registry=registry,
        )
        self.seconds = Histogram(
            "kvloop_operator_reconcile_seconds",
            "How long a look took.",
            ("kind",),
            buckets=SECONDS,
            registry=registry,
        )
        self.depth = Gauge(
            "kvloop_operator_queue_depth", "Resources that are due.", registry=registry
        )
        self.api_calls = Counter(
            "kvloop_operator_api_calls",
            "Calls of the API server; code none: no answer.",
            ("verb", "resource", "namespace", "code"),
            registry=registry,
        )
        self.leader = Gauge(
            "kvloop_operator_leader", "1 where this process leads.", registry=registry
        )
        self.watch_restarts = Counter(
            "kvloop_operator_watch_restarts", "Watching that began anew.", registry=registry
        )
        self.conditions = Gauge(
            "kvloop_resource_condition",
            "1 for the status that a condition has.",
            ("kind", "namespace", "name", "type", "status"),
            registry=registry,
        )
        self._shown: dict[tuple[str, str, str], set[str]] = {}

    def show_conditions(
        self, kind: str, namespace: str, name: str, conditions: Iterable[Mapping[str, Any]]
    ) -> None:
        """Of one resource, in place of those shown before."""
        self.forget(kind, namespace, name)
        types = self._shown[(kind, namespace, name)] = set()
        for condition in conditions:
            types.add(condition["type"])
            for status in STATUSES:
                labels = (kind, namespace, name, condition["type"], status)
                self.conditions.labels(*labels).set(float(condition["status"] == status))

    def forget_all(self) -> None:
        """Who leads no more knows of none."""
        for key in list(self._shown):
            self.forget(*key)

    def forget(self, kind: str, namespace: str, name: str) -> None:
        """A resource that is gone shows nothing."""
        for type_ in self._shown.pop((kind, namespace, name), set()):
            for status in STATUSES:
                self.conditions.remove(kind, namespace, name, type_, status)
