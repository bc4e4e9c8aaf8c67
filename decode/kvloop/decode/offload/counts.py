"""What became of the offload's pages, as metrics."""

from __future__ import annotations

from kvloop.decode.offload.chain import Cause, HoleReason
from kvloop.decode.offload.policy import SkipReason
from kvloop.decode.offload.staging import Copied
from kvloop.engine.metrics import NodeMetrics
from kvloop.shared_cache.hicache_names import BackPressure


class Counts:
    """Each page that deserved storing is `stored` or `given_up`, once."""

    def __init__(self, metrics: NodeMetrics, page_bytes: int) -> None:
        self._metrics, self._page_bytes = metrics, page_bytes

    def copied(self, copy: Copied) -> None:
        """Device to host."""
        result = "done" if copy.is_whole else "failed"
        self._metrics.moved("backup", result, len(copy.pages), copy.num_bytes, copy.seconds)

    def stored(self, hole: HoleReason | None, seconds: float) -> None:
        """L3 has a page, so long after it became due."""
        self._metrics.offload_seconds.observe(seconds)
        if hole is not None:
            self._metrics.chain_holes.labels(hole, "true").inc()

    def given_up(self, cause: Cause, num_pages: int, num_behind: int) -> None:
        """Pages that will not be stored; of these so many only because of one before them."""
        if num_pages:
            self._metrics.chain_holes.labels(cause, "false").inc(num_pages)
        self.skipped("behind_hole", num_behind)

    def skipped(self, reason: SkipReason, num_pages: int) -> None:
        """Full pages that are not worth storing."""
        if num_pages:
            self._metrics.offload_skipped.labels(reason).inc(num_pages)
            self._metrics.offload_skipped_bytes.labels(reason).inc(num_pages * self._page_bytes)

    def dropped(self, policy: BackPressure) -> None:
        """A page was given up because staging was full."""
        self._metrics.offload_dropped.labels(policy).inc()

    def offered_again(self, num_pages: int) -> None:
        """Pages that a storage call had failed for."""
        self._metrics.offload_retries.inc(num_pages)
