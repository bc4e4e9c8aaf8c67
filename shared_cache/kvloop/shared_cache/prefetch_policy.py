"""How long a prompt that could be computed now waits for its pages from L3: pure decisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kvloop.shared_cache.hicache_names import PrefetchPolicy

StopReason = Literal["estimate", "timeout", "cap"]
_SHARE = 0.25
_MIN_PATIENCE_S = 0.1
_PATIENCE = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefetchLimits:
    """`NodeConfig` has the flags."""

    policy: PrefetchPolicy = "best_effort"
    threshold: int = 1
    """Tokens: a shorter rest of a prompt is not looked for."""
    timeout_base: float = 1.0
    timeout_per_ki_token: float = 0.25
    cap_s: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """One prompt's wait so far."""

    waited_s: float
    """Since its computing could have begun."""
    num_wanted: int
    """Pages."""
    num_arrived: int
    page_size: int


class Rates:
    """Moving averages of what was measured; None before the first measurement."""

    def __init__(self) -> None:
        self.compute_s_per_token: float | None = None
        self.fetch_s_per_page: float | None = None
        self.fetch_latency_s: float | None = None
        """From the question to the first batch of pages."""

    def computed(self, num_tokens: int, seconds: float) -> None:
        """A forward pass of prompt tokens."""
        self.compute_s_per_token = _average(self.compute_s_per_token, seconds / num_tokens)

    def fetched(self, num_pages: int, seconds: float) -> None:
        """A batch of pages from L3."""
        self.fetch_s_per_page = _average(self.fetch_s_per_page, seconds / num_pages)

    def answered(self, seconds: float) -> None:
        """The first batch of a prefetch is here."""
        self.fetch_latency_s = _average(self.fetch_latency_s, seconds)


def stop_reason(wait: Wait, limits: PrefetchLimits, rates: Rates) -> StopReason | None:
    """Why the prompt should be computed now with what has arrived; None: waiting is better.

    Under best_effort and timeout it waits only while that is faster than computing, by the
    measured rates: what has arrived has earned the time that computing it would have taken, and
    beyond that a page may be late by a few times what the first ones usually take.
    """
    if limits.policy == "wait_complete":
        return "cap" if wait.waited_s > limits.cap_s else None
    if limits.policy == "timeout" and wait.waited_s > timeout_s(wait, limits):
        return "timeout"
    return "estimate" if _is_slower_than_computing(wait, rates) else None


def timeout_s(wait: Wait, limits: PrefetchLimits) -> float:
    """What policy timeout grants to so many tokens."""
    num_tokens = wait.num_wanted * wait.page_size
    return limits.timeout_base + limits.timeout_per_ki_token * num_tokens / 1024


def _is_slower_than_computing(wait: Wait, rates: Rates) -> bool:
    if rates.compute_s_per_token is None:
        return wait.waited_s > _patience_s(rates)
    compute_s = rates.compute_s_per_token * wait.page_size  # of one page
    if rates.fetch_s_per_page is not None and rates.fetch_s_per_page >= compute_s:
        return True
    earned_s = wait.num_arrived * compute_s
    rest_s = (wait.num_wanted - wait.num_arrived) * compute_s
    return wait.waited_s > earned_s + min(rest_s, _patience_s(rates))


def _patience_s(rates: Rates) -> float:
    return max(_PATIENCE * (rates.fetch_latency_s or 0.0), _MIN_PATIENCE_S)


def _average(old: float | None, new: float) -> float:
    return new if old is None else old + _SHARE * (new - old)
