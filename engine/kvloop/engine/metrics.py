"""A node's Prometheus metrics; one registry in the engine process, scraped through the front."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from kvloop.shared_cache.storage_counters import StorageCounts

_STATES = ("attached", "detached", "attaching", "draining", "open")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class NodeMetrics:
    """Names are the contract of the design's section 3."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.prompt_tokens = self._counter(
            "kvloop_prompt_tokens", "Prompt tokens by where their KV came from", "source"
        )
        self.storage_hit_tokens = self._counter(
            "kvloop_storage_hit_tokens", "Tokens read from the shared cache", "writer"
        )
        self.pages = self._counter("kvloop_pages", "Pages moved", "path", "result")
        self.page_bytes = self._counter("kvloop_pages_bytes", "Bytes moved", "path", "result")
        self.page_seconds = self._counter("kvloop_pages_seconds", "Time moving", "path", "result")
        self.prefetch_unfulfilled = self._counter(
            "kvloop_prefetch_unfulfilled_pages",
            "Pages of L3 that a prompt was computed without, by why",
            "reason",
        )
        self.chain_holes = self._counter(
            "kvloop_chain_holes", "Pages missing from a chain", "reason", "repaired"
        )
        self.offload_dropped = self._counter(
            "kvloop_offload_dropped_pages", "Pages given up because staging was full", "policy"
        )
        self.offload_skipped = self._counter(
            "kvloop_offload_skipped_pages", "Full pages not worth storing, by why", "reason"
        )
        self.offload_skipped_bytes = self._counter(
            "kvloop_offload_skipped_bytes", "Their bytes", "reason"
        )
        self.offload_retries = Counter(
            "kvloop_offload_retries", "Pages offered to L3 again", registry=self.registry
        )
        self.tail_tokens = self._counter(
            "kvloop_tail_tokens", "Tokens of partial last pages, by what became of them", "result"
        )
        self.kv_events = self._counter(
            "kvloop_kv_events", "Pages whose entering or leaving a tier was published", "kind"
        )
        self.faults = self._counter("kvloop_faults", "Faults seen and survived", "kind")
        self.fallbacks = self._counter("kvloop_fallbacks", "Paths left for another", "kind")
        self.offload_backlog = Gauge(
            "kvloop_offload_backlog_pages", "Pages yet to be stored", registry=self.registry
        )
        self.offload_staging = Gauge(
            "kvloop_offload_staging_pages",
            "Host pages on their way to L3, or kept by a call that is not back",
            registry=self.registry,
        )
        self.quarantined = Gauge(
            "kvloop_quarantined_pages",
            "Pages a sender may still write into",
            registry=self.registry,
        )
        self.free_pages = Gauge(
            "kvloop_device_free_pages", "Free pages of the device pool", registry=self.registry
        )
        self.tier_pages = Gauge(
            "kvloop_tier_pages",
            "Pages that a prefill node holds, or of L3 knows, by tier",
            ["tier"],
            registry=self.registry,
        )
        self.storage_state = Gauge(
            "kvloop_storage_state",
            "1 for the state the storage backend is in",
            ["backend", "state"],
            registry=self.registry,
        )
        self._seen = StorageCounts()
        self.queue_seconds = self._histogram("kvloop_queue_seconds", "Time until work begins")
        self.hand_off_seconds = self._histogram("kvloop_hand_off_seconds", "Ask to last page")
        self.offload_seconds = self._histogram(
            "kvloop_offload_seconds", "From a page being full, or found missing, to its being in L3"
        )
        self.step_seconds = self._histogram("kvloop_step_seconds", "One forward pass")

    def moved(self, path: str, result: str, pages: int, num_bytes: int, seconds: float) -> None:
        """Count one movement of pages."""
        self.pages.labels(path, result).inc(pages)
        self.page_bytes.labels(path, result).inc(num_bytes)
        self.page_seconds.labels(path, result).inc(seconds)

    def take_storage(self, now: StorageCounts, status: dict[str, Any]) -> None:
        """Bring the shared cache's own counters up to date; under one caller at a time."""
        before, self._seen = self._seen, now
        for counter, new, old in (
            (self.pages, now.pages, before.pages),
            (self.page_bytes, now.num_bytes, before.num_bytes),
        ):
            for (path, result), value in _added(new, old).items():
                counter.labels(path, result).inc(value)
        for path, seconds in _added(now.seconds, before.seconds).items():
            self.page_seconds.labels(path, "all").inc(seconds)
        for kind, count in _added(now.faults, before.faults).items():
            self.faults.labels(kind).inc(count)
        self.storage_state.clear()  # the backend may be another by now
        for state in _STATES:
            self.storage_state.labels(status["backend"], state).set(status["state"] == state)

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, registry=self.registry)

    def _histogram(self, name: str, help_text: str) -> Histogram:
        return Histogram(name, help_text, buckets=_SECONDS, registry=self.registry)


def _added(new: Mapping[Any, float], old: Mapping[Any, float]) -> dict[Any, float]:
    grown = {key: value - old.get(key, 0) for key, value in new.items()}
    return {key: value for key, value in grown.items() if value > 0}
