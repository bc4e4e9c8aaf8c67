"""A prompt on its way through the prefill node."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from kvloop.prefill.attempt import Attempt
from kvloop.prefill.prefetch import Prefetch
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.wire import PrefillRequest, PromptSources, Role, StorageState


@dataclass(slots=True, kw_only=True)
class Job:
    """State of one attempt; owned by the loop thread."""

    attempt: Attempt
    keys: list[bytes]
    """Of the prompt's full pages; empty when the cache is off."""
    prefetch: Prefetch
    page_size: int
    pages: list[int] = field(default_factory=list)
    num_matched: int = 0
    """Leading pages that the tree holds and that are locked for this job."""
    writers: list[Role] = field(default_factory=list)
    """Of the pages read from the shared cache, which follow the matched ones."""
    num_done: int = 0
    """Tokens whose KV is in `pages`."""
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
    def num_full_pages(self) -> int:
        return self.num_tokens // self.page_size

    @property
    def num_pages(self) -> int:
        return -(-self.num_tokens // self.page_size)

    @property
    def reusable_keys(self) -> list[bytes]:
        """A prompt's last token is always computed: its logits are wanted."""
        return self.keys[: (self.num_tokens - 1) // self.page_size]

    @property
    def reads_device(self) -> bool:
        return self.request.cache == "on"


def job_keys(request: PrefillRequest, page_size: int) -> list[bytes]:
    """Keys of the prompt's full pages; none where no tier may be used."""
    if request.cache == "off":
        return []
    seed = bytes.fromhex(request.cache_seed) if request.cache_seed else None
    return page_keys(request.prompt, page_size, seed)
