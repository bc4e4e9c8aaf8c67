"""Which prompts a prefill node does not take, and why: pure."""

from __future__ import annotations

from dataclasses import dataclass

from kvloop.shared_cache.wire import PrefillRequest, Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What this node serves."""

    namespace: str
    generation: str
    page_size: int
    num_pages: int
    """Of the device pool."""
    max_queued: int

    def refusal(self, request: PrefillRequest, num_queued: int) -> Refused | None:
        """None: the prompt is taken."""
        if (request.namespace, request.generation) != (self.namespace, self.generation):
            return Refused(
                status=409,
                kind="namespace",
                message=f"namespace {request.namespace[:12]} generation {request.generation!r} "
                f"asked, this node is {self.namespace[:12]} {self.generation!r}",
            )
        if -(-len(request.prompt) // self.page_size) > self.num_pages:
            return Refused(
                status=400,
                kind="too_long",
                message=f"prompt of {len(request.prompt)} tokens, this node's pool holds "
                f"{self.num_pages * self.page_size} (--max-total-tokens)",
            )
        if num_queued >= self.max_queued:
            return Refused(status=429, kind="queue", message="queue full", retry_after_s=1.0)
        return None
