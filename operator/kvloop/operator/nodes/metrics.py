"""What the operator reads of a Prometheus text: sums of counters, and histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

_SOURCES = ("computed", "device", "host", "storage", "transfer_skipped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Counts since the process's start; two of them subtract to a window."""

    buckets: tuple[tuple[float, float], ...] = ()
    """(upper bound, observations not above it), ascending, the last at infinity."""
    total: float = 0.0
    """Of all observed values."""

    @property
    def count(self) -> float:
        return self.buckets[-1][1] if self.buckets else 0.0

    @property
    def mean(self) -> float | None:
        """None where nothing was observed."""
        return self.total / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """Linear inside a bucket, as Prometheus has it; beyond the last bound: that bound."""
        if not self.count:
            return None
        wanted, below, low = share * self.count, 0.0, 0.0
        for bound, count in self.buckets:
            if count >= wanted and count > below:
                if math.isinf(bound):
                    return low
                return low + (bound - low) * (wanted - below) / (count - below)
            low, below = (bound, count) if not math.isinf(bound) else (low, count)
        return low

    def since(self, earlier: Histogram | None) -> Histogram:
        """What was observed after `earlier`; all of it where the process was restarted since."""
        if earlier is None or earlier.count > self.count or not self.buckets:
            return self
        before = dict(earlier.buckets)
        buckets = tuple((bound, count - before.get(bound, 0.0)) for bound, count in self.buckets)
        return Histogram(buckets=buckets, total=self.total - earlier.total)

    def plus(self, other: Histogram) -> Histogram:
        """Of two processes together; their bounds are alike."""
        if not self.buckets or not other.buckets:
            return self if self.buckets else other
        theirs = dict(other.buckets)
        buckets = tuple((bound, count + theirs.get(bound, 0.0)) for bound, count in self.buckets)
        return Histogram(buckets=buckets, total=self.total + other.total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """One scrape."""

    values: Mapping[str, Mapping[tuple[tuple[str, str], ...], float]] = field(default_factory=dict)
    """By sample name, then by its sorted labels."""

    def sum(self, name: str, **labels: str) -> float | None:
        """Of all samples of that name with these labels; None where there is none."""
        wanted = set(labels.items())
        found = [v for key, v in self.values.get(name, {}).items() if wanted <= set(key)]
        return sum(found) if found else None

    def histogram(self, name: str) -> Histogram:
        """Empty where there is none."""
        counts: dict[float, float] = {}
        for key, value in self.values.get(f"{name}_bucket", {}).items():
            bound = float(dict(key)["le"])
            counts[bound] = counts.get(bound, 0.0) + value
        total = self.sum(f"{name}_sum") or 0.0
        return Histogram(buckets=tuple(sorted(counts.items())), total=total)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTokens:
    """Prompt tokens by where their KV came from, since the process's start."""

    computed: float = 0.0
    device: float = 0.0
    host: float = 0.0
    storage: float = 0.0
    transfer_skipped: float = 0.0

    @property
    def hit_rate(self) -> float | None:
        """Share that was not computed; None before the first prompt."""
        total = sum(getattr(self, source) for source in _SOURCES)
        return 1 - self.computed / total if total else None

    def plus(self, other: PromptTokens) -> PromptTokens:
        """Of two routers together."""
        return PromptTokens(**{s: getattr(self, s) + getattr(other, s) for s in _SOURCES})


def parse_metrics(text: str) -> Samples:
    """Raise ValueError where it is no Prometheus text."""
    values: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            values.setdefault(sample.name, {})[labels] = sample.value
    return Samples(values=values)


def prompt_tokens(samples: Samples) -> PromptTokens:
    """Zeros where a router counts none."""
    name = "kvloop_prompt_tokens_total"
    return PromptTokens(**{s: samples.sum(name, source=s) or 0.0 for s in _SOURCES})
