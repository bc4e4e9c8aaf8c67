"""The tree driving the tiers: HiCache, its reads from and writes to L3, and its live settings."""

from __future__ import annotations

import time
from dataclasses import replace

from kvloop.engine.node_config import NodeConfig
from kvloop.engine.parts import NodeParts
from kvloop.prefill.job import Job
from kvloop.prefill.prefetch import Prefetcher
from kvloop.prefill.storage_writer import StorageWriter
from kvloop.prefill.tail import JobTails
from kvloop.prefill.tail_search import Tails
from kvloop.shared_cache.hicache import HiCache
from kvloop.shared_cache.hicache_names import PrefetchPolicy, WritePolicy
from kvloop.shared_cache.hicache_parts import HiCacheConfig
from kvloop.shared_cache.prefetch_policy import PrefetchLimits, Rates, Wait, stop_reason

_MAX_LOOK_UPS = 4
"""For one prompt, where tiers too small for all that queue lose what it counted on."""
_MAX_BACKLOG_PAGES = 512
"""Pages with the writer at once; the rest waits in L2, where it can be evicted no sooner."""
_NAP_S = 0.005


class CacheController:
    """One prefill node's three tiers; everything is called by the loop thread."""

    def __init__(self, parts: NodeParts) -> None:
        config = parts.config
        self._metrics = parts.metrics
        self._store = parts.store
        self._page_size = config.page_size
        self._page_bytes = parts.shape.payload_bytes * parts.shape.head_groups
        self.cache = HiCache(
            parts.kv.num_pages,
            parts.pool,
            parts.mover,
            hicache_config(config),
            observer=self,
            tiers=parts.events,
        )
        self._events = parts.events
        self.limits = prefetch_limits(config)
        self.rates = Rates()
        self._prefetcher = Prefetcher(
            parts.store, self.cache, self.rates, self._unfulfilled, parts.shape.slot_bytes
        )
        self._tails = Tails(parts.store, self.cache, self._count_tail, config.tail_objects)
        self.tails = JobTails(self._tails, self.cache, self._count_tail)
        self._writer = StorageWriter(parts.store)
        self._generation = parts.store.generation

    @property
    def backlog(self) -> int:
        """Pages yet to be stored."""
        return self._writer.backlog

    def turn(self) -> None:
        """Move everything on; never waits."""
        self._notice_change()
        self.cache.poll()
        self._collect()
        self._prefetcher.turn()
        self._tails.turn()
        self._write()

    def close(self, timeout_s: float) -> None:
        """Store what is on its way to L2 or to L3, within the deadline."""
        self._prefetcher.close()
        self._tails.close()
        until = time.monotonic() + timeout_s
        while True:
            self.cache.poll()
            self._collect()
            self._write()
            if not (self.cache.is_moving or self.backlog) or time.monotonic() > until:
                break
            time.sleep(_NAP_S)
        self._writer.close(max(until - time.monotonic(), 0.0))

    def _collect(self) -> None:
        for written in self._writer.collect():
            self.cache.marks.stored(written.run, written.results)

    # --- a job's pages ------------------------------------------------------------------------

    def look_up(self, job: Job) -> None:
        """Begin to read from L3 what L1 and L2 lack of a prompt that has just come."""
        if self._events is not None:
            request = job.request
            self._events.learn(request.attempt, job.keys, lambda: request.prompt, job.seed)
        known = self.cache.look_up(job.keys[: job.num_reusable]) if job.reads_tree else 0
        job.num_look_ups, job.num_known = job.num_look_ups + 1, known
        self.tails.drop(job)
        missing = job.num_reusable - known
        if not self._store.is_attached:
            return
        if missing * self._page_size < self.limits.threshold or not missing:
            self._unfulfilled("threshold", missing)
            self.tails.seek(job, known)
            return
        if job.reads_tree:
            job.follows = self._prefetcher.under_way(job.keys[known])
        if job.follows is None:
            keys = job.keys[: job.num_reusable]
            job.prefetch = self._prefetcher.start(keys, known, job.request.tenant)

    def waits(self, job: Job, now: float) -> bool:
        """Whether a job that could be computed had better wait for its pages."""
        if job.follows is not None and (job.follows.is_done or job.follows.is_stopped):
            job.follows = None
            self.look_up(job)  # what it brought is in L2; there may be more in L3
        prefetch = job.prefetch or job.follows
        if prefetch is None:
            return self._looks_again(job) or self._waits_for_tail(job, now)
        if job.prefetch is not None and (prefetch.slots or prefetch.is_done):
            # Not before it has its slots: it waits for all of them, and the tail takes one too.
            self.tails.seek(job, prefetch.first + len(prefetch.slots))
        num_arrived = len(prefetch.writers)
        is_done = prefetch.is_done
        reason = "" if is_done else self._stop_reason(job, prefetch.num_wanted, num_arrived, now)
        if reason is None:
            return True
        if job.prefetch is not None:
            job.fetched = self._prefetcher.take(job.prefetch, reason)
        job.prefetch = job.follows = None
        return not reason and (self._looks_again(job) or self._waits_for_tail(job, now))

    def _waits_for_tail(self, job: Job, now: float) -> bool:
        """It is waited for as one page more would be."""
        if job.tail is None or job.tail.is_done:
            return False
        num_arrived = len(job.fetched.slots) if job.fetched is not None else 0
        return self._stop_reason(job, num_arrived + 1, num_arrived, now) is None

    def _looks_again(self, job: Job) -> bool:
        """Pages may have left L1 and L2 while the job queued: what followed them is of no use."""
        if job.num_look_ups >= _MAX_LOOK_UPS or not job.num_known:
            return False
        if self.cache.num_found(job.keys[: job.num_known]) == job.num_known:
            return False
        if job.fetched is not None:
            self.cache.give_back(job.fetched)
            job.fetched = None
        self.look_up(job)
        return job.prefetch is not None or job.follows is not None

    def place(self, job: Job) -> bool:
        """Lease the job's pages; False where too few are free."""
        request = job.request
        self.tails.take(job)
        job.lease = self.cache.acquire(
            job.keys,
            num_pages=job.num_pages,
            num_readable=job.num_reusable,
            fetched=job.fetched,
            tail=job.fetched_tail,
            reads_tree=job.reads_tree,
            owner=request.tenant,
            priority=request.priority,
        )
        if job.lease is None:
            return False
        job.fetched = None
        self.tails.placed(job)
        job.num_done = len(job.lease.sources) * self._page_size
        return True

    def publish(self, job: Job) -> None:
        """The prompt is computed: cache it, write it on, and say where its pages are."""
        assert job.lease is not None
        self.cache.publish(job.lease)
        job.storage = self.cache.marks.states(job.keys) or ["will_not"] * job.num_full_pages
        self._write()

    def forget(self, job: Job) -> None:
        """The job is over, however it ended."""
        if self._events is not None:
            self._events.forget(job.request.attempt)
        if job.prefetch is not None:
            self._prefetcher.drop(job.prefetch)
        if job.fetched is not None:
            self.cache.give_back(job.fetched)
        self.tails.drop(job)
        if job.lease is not None:
            self.cache.release(job.lease)
        job.prefetch = job.follows = job.fetched = job.lease = None

    # --- live settings ------------------------------------------------------------------------

    def set_policies(
        self, prefetch_policy: PrefetchPolicy | None, write_policy: WritePolicy | None
    ) -> None:
        """None leaves a policy as it is."""
        self.limits = replace(self.limits, policy=prefetch_policy or self.limits.policy)
        self.cache.write_policy = write_policy or self.cache.write_policy

    def set_prefetch_limits(
        self,
        threshold: int | None,
        timeout_base: float | None,
        timeout_per_ki_token: float | None,
    ) -> None:
        """None leaves a limit as it is."""
        old = self.limits
        self.limits = replace(
            old,
            threshold=old.threshold if threshold is None else threshold,
            timeout_base=old.timeout_base if timeout_base is None else timeout_base,
            timeout_per_ki_token=(
                old.timeout_per_ki_token if timeout_per_ki_token is None else timeout_per_ki_token
            ),
        )

    def policies(self) -> dict[str, str]:
        """Those in force."""
        return {
            "hicache_storage_prefetch_policy": self.limits.policy,
            "hicache_write_policy": self.cache.write_policy,
        }

    # --- small parts --------------------------------------------------------------------------

    def moved(self, path: str, result: str, pages: int, seconds: float) -> None:
        """HiCache's observer."""
        num_bytes = pages * self._page_bytes if result == "done" else 0
        self._metrics.moved(path, result, pages, num_bytes, seconds)

    def _stop_reason(self, job: Job, num_wanted: int, num_arrived: int, now: float) -> str | None:
        job.ready_at = job.ready_at or now
        wait = Wait(
            waited_s=now - job.ready_at,
            num_wanted=num_wanted,
            num_arrived=num_arrived,
            page_size=self._page_size,
        )
        limits = self.limits
        if job.request.cache == "l3_only":  # asks what L3 holds: not how fast
            limits = replace(limits, policy="wait_complete")
        return stop_reason(wait, limits, self.rates)

    def _notice_change(self) -> None:
        """Of another backend, or one that has lost its pages, nothing is known; it gets all of L2.

        One that works again after a fault is offered what L2 took meanwhile.
        """
        marks = self.cache.marks
        was_attached, marks.is_attached = marks.is_attached, self._store.is_attached
        is_other = self._store.generation != self._generation
        if is_other:
            self._generation = self._store.generation
            marks.forget()
        if is_other or marks.is_attached > was_attached:
            marks.offer_all()

    def _write(self) -> None:
        while self._writer.backlog < _MAX_BACKLOG_PAGES:
            runs = self.cache.marks.take_runs(1)
            if not runs:
                return
            self._writer.submit(runs[0])

    def _count_tail(self, result: str, tokens: int) -> None:
        self._metrics.tail_tokens.labels(result).inc(tokens)

    def _unfulfilled(self, reason: str, pages: int) -> None:
        if pages > 0:
            self._metrics.prefetch_unfulfilled.labels(reason).inc(pages)


def hicache_config(config: NodeConfig) -> HiCacheConfig:
    """The node's flags as HiCache takes them."""
    return HiCacheConfig(
        write_policy=config.hicache_write_policy,
        write_through_threshold=config.hicache_write_through_threshold,
        device_policy=config.radix_eviction_policy,
        host_policy=config.hicache_eviction_policy or config.radix_eviction_policy,
        prefetch_share=config.hicache_prefetch_share,
        tenant_quotas=config.hicache_tenant_quotas,
    )


def prefetch_limits(config: NodeConfig) -> PrefetchLimits:
    """The node's flags as the prefetch takes them."""
    return PrefetchLimits(
        policy=config.hicache_storage_prefetch_policy,
        threshold=config.hicache_prefetch_threshold,
        timeout_base=config.hicache_prefetch_timeout_base,
        timeout_per_ki_token=config.hicache_prefetch_timeout_per_ki_token,
        cap_s=config.hicache_prefetch_cap_s,
    )
