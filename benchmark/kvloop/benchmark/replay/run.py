"""A replay from the trace to its report."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvloop.benchmark.replay.cache import ReplayedCache
from kvloop.benchmark.replay.reference import Reference, Sources
from kvloop.benchmark.replay.trace import Request, read_trace, working_set
from kvloop.benchmark.results.document import Spread
from kvloop.benchmark.results.stats import spread_ms
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.hicache_names import EvictionPolicy, WritePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayConfig:
    """Fields are the command's flags."""

    trace: Path
    l1_share: float = 0.1
    """Of the working set: all different pages of the requests replayed."""
    l2_share: float = 0.5
    policies: tuple[EvictionPolicy, ...] = ("lru",)
    write_policies: tuple[WritePolicy, ...] = ("write_through",)
    threshold: int = 2
    skip: int = 0
    limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """In pages."""

    working_set: int
    l1: int
    l2: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Prompt tokens by where their KV came from."""

    device: int
    host: int
    storage: int
    computed: int

    @property
    def total(self) -> int:
        return self.device + self.host + self.storage + self.computed

    @property
    def hit_rate(self) -> float:
        return 1 - self.computed / self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One policy's replay."""

    policy: EvictionPolicy
    write_policy: WritePolicy
    tokens: Tokens
    expected: Tokens
    """The reference's."""
    num_different: int
    """Requests whose sources are not the reference's."""
    is_same_content: bool
    """Whether L1, L2 and L3 hold the reference's pages at the end."""
    request_ms: Spread
    """The cache's own CPU time for each request: what other processes do does not show."""
    page_us: float
    """Mean."""

    @property
    def is_equal(self) -> bool:
        return not self.num_different and self.is_same_content


def replay(config: ReplayConfig) -> tuple[Sizes, Iterator[Outcome]]:
    """Replay once for each pair of policies; raises ConfigError naming the flag."""
    requests = read_trace(config.trace, skip=config.skip, limit=config.limit, priority=_priority)
    sizes = fit_sizes(requests, config.l1_share, config.l2_share)
    pairs = [(policy, write) for write in config.write_policies for policy in config.policies]
    return sizes, (replay_one(requests, sizes, *pair, config.threshold) for pair in pairs)


def fit_sizes(requests: Sequence[Request], l1_share: float, l2_share: float) -> Sizes:
    """Raises ConfigError where a tier would not hold what one request needs of it."""
    num = working_set(requests)
    sizes = Sizes(working_set=num, l1=int(num * l1_share), l2=int(num * l2_share))
    longest = max(len(request.pages) for request in requests)
    for flag, pages, need in (
        ("--l1-share", sizes.l1, longest),
        ("--l2-share", sizes.l2, sizes.l1 + longest),
    ):
        if pages < need:
            raise ConfigError(
                f"{flag}: {pages} of {num} pages are too few, these requests need {need}; "
                "give a larger share, or more requests"
            )
    return sizes


def replay_one(
    requests: Sequence[Request],
    sizes: Sizes,
    policy: EvictionPolicy,
    write_policy: WritePolicy,
    threshold: int = 2,
) -> Outcome:
    """All requests through the cache and through the reference, each compared."""
    cache, reference = (
        kind(
            l1_pages=sizes.l1,
            l2_pages=sizes.l2,
            policy=policy,
            write_policy=write_policy,
            threshold=threshold,
        )
        for kind in (ReplayedCache, Reference)
    )
    assert isinstance(cache, ReplayedCache) and isinstance(reference, Reference)
    found: list[Sources] = []
    seconds: list[float] = []
    gc.collect()
    for request in requests:
        keys = cache.keys(request.pages)
        began_at = time.thread_time()
        found.append(cache.serve(keys, request.priority))
        seconds.append(time.thread_time() - began_at)
    cache.check()
    expected = [reference.serve(request.pages, request.priority) for request in requests]
    spread = spread_ms(seconds)
    assert spread is not None
    return Outcome(
        policy=policy,
        write_policy=write_policy,
        tokens=_sum(requests, found),
        expected=_sum(requests, expected),
        num_different=sum(a != b for a, b in zip(found, expected, strict=True)),
        is_same_content=cache.contents()
        == (reference.device.pages, reference.host.pages, reference.stored),
        request_ms=spread,
        page_us=1e6 * sum(seconds) / sum(len(request.pages) for request in requests),
    )


def _sum(requests: Sequence[Request], sources: Sequence[Sources]) -> Tokens:
    device = host = storage = computed = 0
    for request, found in zip(requests, sources, strict=True):
        ends = [found.device, found.device + found.host]
        ends += [ends[1] + found.storage, len(request.pages)]
        device += request.tokens(0, ends[0])
        host += request.tokens(ends[0], ends[1])
        storage += request.tokens(ends[1], ends[2])
        computed += request.tokens(ends[2], ends[3])
    return Tokens(device=device, host=host, storage=storage, computed=computed)


def _priority(number: int) -> int:
    """The trace names none: three classes in turn, which only the policy `priority` looks at."""
    return number % 3
