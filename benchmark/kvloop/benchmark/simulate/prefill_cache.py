"""One simulated prefill node's tiers: the real HiCache over a mover and an L3 that take time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kvloop.benchmark.simulate.clock import Clock
from kvloop.benchmark.simulate.job import Fetch, Job
from kvloop.benchmark.simulate.link import Link, send_through
from kvloop.benchmark.simulate.mover import TimedMover
from kvloop.benchmark.simulate.profile import Profile
from kvloop.benchmark.simulate.prompt import Sharing
from kvloop.benchmark.simulate.shared_store import SharedStore
from kvloop.shared_cache.hicache import HiCache
from kvloop.shared_cache.hicache_parts import Fetched, HiCacheConfig, HostRun
from kvloop.shared_cache.prefetch_policy import PrefetchLimits, Rates, Wait, stop_reason
from kvloop.shared_cache.slot_owners import SlotOwners

_RUNS = 1 << 20
_BATCH_BYTES = 8 << 20
"""Read from L3 in one go, as the node does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """L3 and the ways to it from one node: its network card's and the store's own."""

    store: SharedStore
    reads: tuple[Link, ...]
    writes: tuple[Link, ...]


class PrefillCache:
    """`as_traced`: `serve` does all of a prompt at its arrival. `as_timed`: step by step.

    `changed` is called when pages have come that a waiting prompt may want.
    """

    def __init__(
        self,
        clock: Clock,
        profile: Profile,
        storage: Storage,
        *,
        page_size: int,
        l1_pages: int,
        l2_pages: int,
        config: HiCacheConfig,
        limits: PrefetchLimits,
        sharing: Sharing,
        changed: Callable[[], None],
    ) -> None:
        self._clock, self._profile, self._storage = clock, profile, storage
        self._page_size, self._limits, self._changed = page_size, limits, changed
        self._page_bytes = profile.kv_bytes_per_token * page_size
        self._batch = max(1, int(_BATCH_BYTES / self._page_bytes))
        self.mover = TimedMover(
            clock,
            profile.pcie_bytes_per_s,
            self._page_bytes,
            is_instant=sharing == "as_traced",
            moved=self._moved,
        )
        self.cache = HiCache(l1_pages, SlotOwners(l2_pages), self.mover, config)
        self.cache.marks.is_attached = True
        self.rates = Rates()

    # --- as traced ----------------------------------------------------------------------------

    def serve(self, job: Job) -> None:
        """All that the prompt does to the tiers, at once; its times are written to the job."""
        readable = job.keys[: job.prompt.num_readable]
        first = self.cache.look_up(readable)
        writers = self._storage.store.load(readable[first:])
        slots = self.cache.host.take_for_fetch(len(writers), "", spare=readable)
        fetched = Fetched(first=first, slots=tuple(slots), writers=tuple(writers[: len(slots)]))
        self.cache.adopt(readable, fetched)
        self.cache.host.landed(len(slots), "")
        self.cache.host.handed_over(len(slots))
        job.ready_at = self._read(len(slots)) if slots else self._clock.now
        job.fetched = fetched
        is_placed = self.place(job, num_pages=len(job.keys))
        assert is_placed, "L1 is smaller than one prompt"
        if slots:  # what comes from L3 is on the bus only then
            load_s = len(slots) * self._page_bytes / self._profile.pcie_bytes_per_s
            job.loaded_at = max(job.loaded_at, job.ready_at + load_s)
        self.publish(job)
        self.release(job)

    # --- as timed -----------------------------------------------------------------------------

    def look_up(self, job: Job) -> None:
        """A prompt has come: begin to read from L3 what L1 and L2 lack."""
        readable = job.keys[: job.prompt.num_readable]
        first = self.cache.look_up(readable)
        missing = len(readable) - first
        if missing and missing * self._page_size >= self._limits.threshold:
            job.fetch = Fetch(first=first, num_wanted=missing)
            latency_s = self._profile.fetch_latency_s
            began_at = self._clock.now
            self._clock.at(began_at + latency_s, lambda: self._asked(job, began_at))

    def waits(self, job: Job) -> bool:
        """Whether a prompt that could be computed had better wait for its pages."""
        fetch = job.fetch
        if fetch is None:
            return False
        if not fetch.is_done:
            now = self._clock.now
            job.waits_since = now if job.waits_since is None else job.waits_since
            wait = Wait(
                waited_s=now - job.waits_since,
                num_wanted=len(fetch.slots) or fetch.num_wanted,
                num_arrived=len(fetch.writers),
                page_size=self._page_size,
            )
            if stop_reason(wait, self._limits, self.rates) is None:
                return True
        self._take(job, fetch)
        return False

    def place(self, job: Job, num_pages: int) -> bool:
        """Lease the prompt's device pages; False where too few are free."""
        job.lease = self.cache.acquire(
            job.keys,
            num_pages=num_pages,
            num_readable=job.prompt.num_readable,
            fetched=job.fetched,
        )
        if job.lease is None:
            return False
        job.sources, job.fetched = job.lease.sources, None
        job.loaded_at = self.mover.loaded_at if job.lease.load is not None else self._clock.now
        return True

    def publish(self, job: Job) -> None:
        """It is computed: its full pages can be found, and are written on."""
        assert job.lease is not None
        self.cache.publish(job.lease)
        self._write()

    def release(self, job: Job) -> None:
        """Its pages have been sent."""
        assert job.lease is not None
        self.cache.release(job.lease)
        job.lease = None
        self.cache.poll()
        self._write()

    # --- L3 -----------------------------------------------------------------------------------

    def _read(self, num_pages: int) -> float:
        """When so many pages are here."""
        there_at = send_through(self._storage.reads, self._clock.now, num_pages * self._page_bytes)
        extra_s = num_pages * self._page_size * self._profile.fetch_token_s
        return there_at + self._profile.fetch_latency_s + extra_s

    def _asked(self, job: Job, began_at: float) -> None:
        fetch = job.fetch
        if fetch is None or fetch.is_stopped:
            return
        keys = job.keys[fetch.first : job.prompt.num_readable]
        num_found = self._storage.store.leading_run(keys)
        fetch.slots = self.cache.host.take_for_fetch(num_found, "", spare=job.keys)
        if fetch.slots:
            self._next_batch(job, fetch, began_at)
        else:
            fetch.is_done = True
            self._changed()

    def _next_batch(self, job: Job, fetch: Fetch, began_at: float) -> None:
        start = len(fetch.writers)
        num = min(self._batch, len(fetch.slots) - start)
        asked_at = self._clock.now

        def arrived() -> None:
            if fetch.is_stopped:
                return
            first = fetch.first + start
            writers = self._storage.store.load(job.keys[first : first + num])
            fetch.writers += writers
            if writers:
                self.rates.fetched(len(writers), self._clock.now - asked_at)
            if not start:
                self.rates.answered(self._clock.now - began_at)
            fetch.is_done = len(writers) < num or len(fetch.writers) == len(fetch.slots)
            if not fetch.is_done:
                self._next_batch(job, fetch, began_at)
            self._changed()

        self._clock.at(self._read(num), arrived)

    def _take(self, job: Job, fetch: Fetch) -> None:
        """What has arrived is the prompt's; the rest is not waited for."""
        arrived, host = len(fetch.writers), self.cache.host
        job.fetch, fetch.is_stopped = None, True
        host.landed(len(fetch.slots), "")
        host.handed_over(len(fetch.slots))
        host.slots.free(fetch.slots[arrived:])
        if arrived:
            job.fetched = Fetched(
                first=fetch.first,
                slots=tuple(fetch.slots[:arrived]),
                writers=tuple(fetch.writers),
            )
            self.cache.adopt(job.keys, job.fetched)

    def _write(self) -> None:
        for run in self.cache.marks.take_runs(_RUNS):
            num_bytes = len(run.slots) * self._page_bytes
            ends_at = send_through(self._storage.writes, self._clock.now, num_bytes)
            if self.mover.is_instant:
                self._stored(run)
            else:
                self._clock.at(ends_at, lambda run=run: self._stored(run))  # type: ignore[misc]

    def _stored(self, run: HostRun) -> None:
        self._storage.store.put(run.page_keys, "prefill")
        self.cache.marks.stored(run, [True] * len(run.slots))

    def _moved(self) -> None:
        self.cache.poll()
        self._write()
        self._changed()
