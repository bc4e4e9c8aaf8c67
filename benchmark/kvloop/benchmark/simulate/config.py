"""The simulated cluster as it is asked for, and what that comes to in pages."""

from __future__ import annotations

from dataclasses import dataclass

from kvloop.benchmark.simulate.profile import Profile
from kvloop.benchmark.simulate.prompt import Load
from kvloop.shared_cache.errors import ConfigError
from kvloop.shared_cache.hicache_names import EvictionPolicy, PrefetchPolicy, WritePolicy

_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """Fields are the command's flags; sizes are of one node, L3's of all."""

    prefill: int = 1
    decode: int = 1
    l1_pages: int | None = None
    l1_gib: float | None = None
    """Of a prefill node's device; neither: all memory that the weights leave."""
    l2_pages: int | None = None
    l2_gib: float | None = None
    """Neither: twice L1."""
    l3_gib: float | None = None
    """None: unbounded."""
    write_policy: WritePolicy = "write_through"
    write_through_threshold: int = 2
    eviction_policy: EvictionPolicy = "lru"
    """Of all tiers but L3, which forgets what was used longest ago."""
    prefetch_policy: PrefetchPolicy = "best_effort"
    """As timed only: as traced, all that L3 has is waited for."""
    offloads: bool = True
    """Whether decode writes to L3 what a prompt lacks there, and its answer."""
    network_gbps: float = 100.0
    """Gigabits a second of each node, each way."""
    l3_gbps: float = 400.0
    """Of the whole shared cache, each way."""

    def __post_init__(self) -> None:
        for tier in ("l1", "l2"):
            pages, gib = getattr(self, f"{tier}_pages"), getattr(self, f"{tier}_gib")
            if pages is not None and gib is not None:
                raise ConfigError(f"--{tier}-pages and --{tier}-gib: give one of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """In pages; L3's None: unbounded."""

    page_bytes: float
    l1: int
    l2: int
    l3: int | None
    decode: int


def sizes_of(config: ClusterConfig, profile: Profile, load: Load) -> Sizes:
    """Raises ConfigError, naming the flag, where a pool would not hold one request."""
    page_bytes = profile.kv_bytes_per_token * load.page_size
    memory = int(profile.memory_bytes / page_bytes)
    l1 = _pages(config.l1_pages, config.l1_gib, page_bytes, memory)
    l2 = _pages(config.l2_pages, config.l2_gib, page_bytes, 2 * l1)
    l3 = None if config.l3_gib is None else int(config.l3_gib * _GIB / page_bytes)
    answered = max(
        -(-(prompt.num_tokens + prompt.output_length) // load.page_size) for prompt in load.prompts
    )
    for flag, pages, need in (
        ("--l1-gib or --l1-pages", l1, load.most_pages),
        ("--l2-gib or --l2-pages", l2, load.most_pages),
        ("--l3-gib", l3, load.most_pages),
        ("--device-gib (decode's KV)", memory, answered),
    ):
        if pages is not None and pages < need:
            raise ConfigError(
                f"{flag}: {pages} pages of {load.page_size} tokens are too few, the longest "
                f"request needs {need} ({need * page_bytes / _GIB:.2f} GiB)"
            )
    return Sizes(page_bytes=page_bytes, l1=l1, l2=l2, l3=l3, decode=memory)


def _pages(pages: int | None, gib: float | None, page_bytes: float, default: int) -> int:
    if pages is not None:
        return pages
    return default if gib is None else int(gib * _GIB / page_bytes)
