"""What a tail means to a job: where it may be looked for, and how computing begins behind it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from kvloop.prefill.job import Job
from kvloop.prefill.tail_search import Tails, TailSearch
from kvloop.shared_cache.hicache import HiCache

log = logging.getLogger("kvloop.prefill")


class JobTails:
    """Called by the loop thread; does nothing unless tails are switched on."""

    def __init__(self, tails: Tails, cache: HiCache, count: Callable[[str, int], None]) -> None:
        self._tails, self._cache, self._count = tails, cache, count

    def seek(self, job: Job, num_found: int) -> None:
        """Look for the tail behind so many full pages that were found, once for each look-up."""
        if self._tails.is_on and job.tail is None:
            job.tail = search_of(job, num_found)
            if job.tail is not None:
                self._tails.start(job.tail)

    def take(self, job: Job) -> None:
        """The job goes on: with its tail where that is here, else without."""
        if job.tail is not None and job.fetched_tail is None:
            job.fetched_tail = self._tails.take(job.tail)

    def placed(self, job: Job) -> None:
        """The lease has the tail's slot now, whether it is of use or not."""
        assert job.lease is not None
        if job.fetched_tail is not None and job.lease.tail is None:
            self._count("unused", job.fetched_tail.num_tokens)
        job.fetched_tail = None

    def drop(self, job: Job) -> None:
        """The job needs none, or looks anew."""
        self.take(job)
        if job.fetched_tail is not None:
            self._count("unused", job.fetched_tail.num_tokens)
            self._cache.host.slots.free([job.fetched_tail.slot])
        lease = job.lease
        if lease is not None and lease.tail is not None and lease.tail_load is not None:
            self._count("unused", lease.tail.num_tokens)  # still on its way to the device
        job.tail = job.fetched_tail = None

    def has_settled(self, job: Job) -> bool:
        """Whether the job may be computed: its tail is on the device, or cannot be had."""
        lease = job.lease
        if lease is None or lease.tail is None or lease.tail_load is None:
            return True
        if not lease.tail_load.is_done:
            return False
        try:
            lease.tail_load.wait()
        except Exception:
            log.exception("a tail could not be loaded: its tokens are computed")
            self._count("fault", lease.tail.num_tokens)
            lease.tail = None
        else:
            job.num_done += lease.tail.num_tokens
            self._count("hit", lease.tail.num_tokens)
        lease.tail_load = None
        return True


def search_of(job: Job, num_found: int) -> TailSearch | None:
    """What to look for behind so many full pages; None where it could be of no use.

    A prompt of two pages and more of which nothing is known is a new one: looking would cost every
    such prompt a question.
    """
    start = num_found * job.page_size
    most = job.num_tokens - 1 - start
    is_new = num_found == 0 and job.num_tokens >= 2 * job.page_size
    if job.request.cache == "off" or is_new or most < 1:
        return None
    return TailSearch(
        keys=job.keys[:num_found],
        parent=job.keys[num_found - 1] if num_found else job.seed,
        tokens=job.request.prompt[start : start + job.page_size - 1],
        most=most,
        owner=job.request.tenant,
    )
