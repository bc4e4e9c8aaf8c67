"""A prompt on its way through the simulated cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kvloop.benchmark.simulate.prompt import Prompt
from kvloop.shared_cache.hicache_parts import Fetched, Lease, PageSource
from kvloop.shared_cache.wire import Role


@dataclass(slots=True, kw_only=True)
class Fetch:
    """Pages of one prompt on their way from L3 to L2."""

    first: int
    num_wanted: int
    slots: list[int] = field(default_factory=list)
    writers: list[Role] = field(default_factory=list)
    """Of the pages that have arrived."""
    is_done: bool = False
    is_stopped: bool = False


@dataclass(slots=True, kw_only=True)
class Held:
    """Pages of decode's pool that are one request's."""

    keys: Sequence[bytes]
    """Of the leading ones, which the tree holds for it."""
    pages: list[int]
    duplicates: list[int] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Job:
    """Times are the clock's; those that have not come are None."""

    prompt: Prompt
    keys: list[bytes]
    after_keys: list[bytes]
    num_full: int
    """Of `keys`, those whose page is full."""
    arrived_at: float
    prefill: int
    decode: int
    early_until: float = 0.0
    """Decode waits so long at most for what the answer before left."""
    sources: list[PageSource] = field(default_factory=list)
    num_held: int = 0
    """Leading pages that decode had."""
    held: Held | None = None
    lease: Lease | None = None
    fetch: Fetch | None = None
    fetched: Fetched | None = None
    waits_since: float | None = None
    """Since when it could have been computed, had it not waited for its pages."""
    ready_at: float = 0.0
    """As traced: when its pages have come from L3."""
    loaded_at: float = 0.0
    """When its pages have come from L2."""
    maker: Job | None = None
    """As traced: who computes the last page that it found; None once that is done."""
    num_promised: int = 0
    """As traced: pages that L3 has had from decode since it came, written when it is answered."""
    dependents: list[Callable[[], None]] = field(default_factory=list)
    num_done: int = 0
    """Tokens whose KV is there."""
    reserved_at: float | None = None
    computing_at: float | None = None
    computed_at: float | None = None
    sent_at: float = 0.0
    last_layer_s: float = 0.0
    """On the network, behind the end of computing."""
    first_at: float | None = None
    num_left: int = 0
    """Tokens of the answer that are yet to come."""
