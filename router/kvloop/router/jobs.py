"""One prompt on its way: what to generate and for whom."""

from __future__ import annotations

from dataclasses import dataclass

from kvloop.shared_cache.wire import CacheMode, Sampling, StripRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One prompt of a request; times are those of the event loop's clock."""

    request_id: str
    """Begins with `header_id`; no other prompt ever has it."""
    header_id: str
    """The client's request id, the same for all its prompts."""
    prompt: list[int]
    sampling: Sampling
    seed: bytes | None
    """Starts the chain of page keys: the tenant's and the salt's."""
    tenant: str
    """Whose quota its pages count on; empty where no API keys are configured."""
    priority: int
    cache: CacheMode
    stops: tuple[str, ...]
    skip_special_tokens: bool
    keep_stop: bool
    """Show the stop string that ended the answer, instead of cutting it off."""
    arrived: float
    deadline: float
    strip: StripRule | None = None
    """What the template leaves out of this answer in the next turn's prompt."""
    returns: bool | None = None
    """Whether a next turn of this session is expected; None: unknown."""
