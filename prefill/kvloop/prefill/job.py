"""A prompt on its way through the prefill node."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from kvloop.prefill.attempt import Attempt
from kvloop.prefill.prefetch import Prefetch
from kvloop.prefill.tail_search import TailSearch
from kvloop.shared_cache.hicache_parts import Fetched, FetchedTail, Lease
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.wire import PrefillRequest, PromptSources, StorageState


@dataclass(slots=True, kw_only=True)
class Job:
    """State of one attempt; owned by the loop thread."""

    attempt: Attempt
    keys: list[bytes]
    """Of the prompt's full pages; empty when the cache is off."""
    page_size: int
    num_look_ups: int = 0
    num_known: int = 0
    """Leading pages that L1 and L2 had at the last look."""
    prefetch: Prefetch | None = None
    follows: Prefetch | None = None
    """Another job's, which brings what this one needs first: nothing is read twice at a time."""
    fetched: Fetched | None = None
    """What the prefetch brought, until the lease has it."""
    tail: TailSearch | None = None
    """For the partial page behind what L3 is known to have."""
    fetched_tail: FetchedTail | None = None
    """What it brought, until the lease has it."""
    lease: Lease | None = None
    """The job's device pages, once it has been placed."""
    ready_at: float | None = None
    """Since when it could have been computed, had it not waited for its prefetch."""
    num_done: int = 0
    """Tokens whose KV is in the lease's pages."""
    storage: list[StorageState] = field(default_factory=list)
    sources: PromptSources = field(default_factory=PromptSources)
    last_layer_at: float = 0.0
    """CLOCK_MONOTONIC when the newest layer's KV was in the pool."""
    created_at: float = field(default_factory=time.monotonic)

    @property
    def request(self) -> PrefillRequest:
        return self.attempt.request

    @property
    def num_tokens(self) -> int:
        return len(self.request.prompt)

    @property
    def pages(self) -> list[int]:
        """Device pages of the whole prompt; none before it has been placed."""
        return self.lease.pages if self.lease is not None else []

    @property
    def num_full_pages(self) -> int:
        return self.num_tokens // self.page_size

    @property
    def num_pages(self) -> int:
        return -(-self.num_tokens // self.page_size)

    @property
    def num_reusable(self) -> int:
        """Leading pages that may come from a tier: the last token is always computed."""
        return min((self.num_tokens - 1) // self.page_size, len(self.keys))

    @property
    def seed(self) -> bytes | None:
        """What the chain of its keys begins with."""
        return bytes.fromhex(self.request.cache_seed) if self.request.cache_seed else None

    @property
    def reads_tree(self) -> bool:
        """Whether L1 and L2 may be read."""
        return self.request.cache == "on"


def job_keys(request: PrefillRequest, page_size: int) -> list[bytes]:
    """Keys of the prompt's full pages; none where no tier may be used."""
    if request.cache == "off":
        return []
    seed = bytes.fromhex(request.cache_seed) if request.cache_seed else None
    return page_keys(request.prompt, page_size, seed)
