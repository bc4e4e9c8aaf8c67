"""What the router counts, in its own Prometheus registry."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from kvloop.router.nodes import NodeState
from kvloop.shared_cache.wire import NodeRecord, PromptSources

_LATENCY_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 60, 120, 600)
_EXPECTED = {True: "returns", False: "ends", None: "unknown"}
_SOURCES = ("computed", "device", "host", "storage", "transfer_skipped")


class RouterMetrics:
    """Counters and histograms; every series that can be named beforehand starts at 0."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "kvloop_requests",
            "Requests by endpoint and HTTP status",
            ["endpoint", "status"],
            registry=registry,
        )
        self.prompt_tokens = Counter(
            "kvloop_prompt_tokens",
            "Prompt tokens by where their KV came from",
            ["source"],
            registry=registry,
        )
        self.storage_hits = Counter(
            "kvloop_storage_hit_tokens",
            "Prompt tokens read from the shared cache, by the role that wrote them",
            ["writer"],
            registry=registry,
        )
        self.generated_tokens = Counter(
            "kvloop_generated_tokens", "Tokens sampled", registry=registry
        )
        self.fallbacks = Counter(
            "kvloop_fallbacks",
            "Requests that left their preferred path",
            ["kind"],
            registry=registry,
        )
        self.drift = Counter(
            "kvloop_retokenization_drift",
            "Chats whose text, tokenized again, differs from the tokens that were generated",
            ["repaired"],
            registry=registry,
        )
        self.history_lookups = Counter(
            "kvloop_history_lookups",
            "Chats with an earlier answer, by where the ids of the last one were found",
            ["result"],
            registry=registry,
        )
        self.history_records = Counter(
            "kvloop_history_records",
            "Answers whose ids were to be shared with other routers",
            ["result"],
            registry=registry,
        )
        self.sessions_expected = Counter(
            "kvloop_sessions_expected",
            "Prompts by what their decode node was told of a next turn",
            ["answer"],
            registry=registry,
        )
        self.sessions_seen = Counter(
            "kvloop_sessions_seen",
            "Answered turns of chats by what was expected, and what came",
            ["expected", "came_back"],
            registry=registry,
        )
        self.ttft = _seconds("kvloop_ttft_seconds", "Arrival to first token", registry)
        self.itl = _seconds("kvloop_itl_seconds", "Between tokens of one answer", registry)
        self.e2e = _seconds("kvloop_e2e_seconds", "Arrival to last token", registry)
        self.queue = _seconds("kvloop_queue_seconds", "Arrival to being sent to a node", registry)
        self.in_flight = Gauge("kvloop_router_in_flight", "Prompts being served", registry=registry)
        self.nodes = Gauge(
            "kvloop_nodes", "Nodes by role and state", ["role", "state"], registry=registry
        )
        self._name_series()

    def count_sources(self, sources: PromptSources) -> None:
        """Add one prompt's tokens."""
        for source in _SOURCES:
            self.prompt_tokens.labels(source).inc(getattr(sources, source))
        self.storage_hits.labels("prefill").inc(sources.storage_by_prefill)
        self.storage_hits.labels("decode").inc(sources.storage_by_decode)

    def session_expected(self, returns: bool | None) -> None:
        """Count what a decode node was told."""
        self.sessions_expected.labels(_EXPECTED[returns]).inc()

    def session_seen(self, expected: bool | None, came_back: bool) -> None:
        """Count how it turned out."""
        self.sessions_seen.labels(_EXPECTED[expected], str(came_back).lower()).inc()

    def render(self, nodes: Iterable[tuple[NodeRecord, NodeState]]) -> bytes:
        """The text that Prometheus scrapes."""
        tally = Tally((record.role, state) for record, state in nodes)
        for role in ("prefill", "decode"):
            for state in ("ready", "starting", "suspect", "lost"):
                self.nodes.labels(role, state).set(tally[(role, state)])
        return generate_latest(self.registry)

    def _name_series(self) -> None:
        self.count_sources(PromptSources())
        for kind in ("prefill_retry", "local_prefill", "decode_retry"):
            self.fallbacks.labels(kind)
        for repaired in ("true", "false"):
            self.drift.labels(repaired)
        for result in ("memory", "shared", "miss", "fault"):
            self.history_lookups.labels(result)
        for result in ("stored", "dropped", "too_large", "failed"):
            self.history_records.labels(result)
        for expected in _EXPECTED.values():
            self.sessions_expected.labels(expected)
            for came_back in ("true", "false"):
                self.sessions_seen.labels(expected, came_back)


def _seconds(name: str, text: str, registry: CollectorRegistry) -> Histogram:
    return Histogram(name, text, buckets=_LATENCY_S, registry=registry)
