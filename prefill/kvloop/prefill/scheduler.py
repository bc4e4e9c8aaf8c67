"""The prefill node's loop: match, prefetch, compute in chunks, push layers, store."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import torch

from kvloop.engine.batch import Segment, make_batch
from kvloop.engine.chunks import plan_chunks
from kvloop.engine.messages import Attempt as AttemptMessage
from kvloop.engine.messages import AttemptEvent, Cancel, CancelDone, ToEngine, ToFront
from kvloop.engine.parts import NodeParts
from kvloop.engine.sampling import SamplingState, sample
from kvloop.engine.transfer import Transfer
from kvloop.prefill.attempt import Attempt, Attempts
from kvloop.prefill.cache_controller import CacheController
from kvloop.prefill.job import Job, job_keys
from kvloop.prefill.pushes import Pushes
from kvloop.prefill.refusal import Limits
from kvloop.prefill.sender import Sender
from kvloop.prefill.sources import prompt_sources
from kvloop.shared_cache.hicache_names import PrefetchPolicy, WritePolicy
from kvloop.shared_cache.tree_node import Tier
from kvloop.shared_cache.wire import (
    NodeLoad,
    PrefillDone,
    PrefillEvent,
    PrefillRequest,
    Progress,
    Refused,
)

log = logging.getLogger("kvloop.prefill")
_PROGRESS_S = 1.0
_CANCEL_S = 5.0


class PrefillScheduler:
    """Everything but `attempts` is touched by the loop thread only."""

    def __init__(
        self, parts: NodeParts, transfer: Transfer, send: Callable[[ToFront], None]
    ) -> None:
        self._parts, self._send = parts, send
        self._config, self._metrics = parts.config, parts.metrics
        self._page_size = parts.config.page_size
        self.controller = CacheController(parts)
        self.attempts = Attempts()
        self._limits = Limits(
            namespace=parts.identity.namespace,
            generation=parts.identity.generation,
            page_size=self._page_size,
            num_pages=parts.kv.num_pages,
            max_queued=self._config.max_queued_requests,
        )
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._sending: list[Job] = []
        self._ended: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._sender = Sender(transfer, parts.kv, parts.metrics, self._report, self._fail_transfer)
        self._pushes = Pushes(parts, self._sender)
        self._progress_at = 0.0

    # --- what the front sends ---------------------------------------------------------------

    def handle(self, message: ToEngine) -> None:
        """A message of the front, on the loop thread."""
        assert isinstance(message, AttemptMessage), message
        self._add(message.request)

    def intercept(self, message: ToEngine) -> bool:
        """Cancellations do not wait for the loop's turn."""
        if not isinstance(message, Cancel):
            return False
        threading.Thread(target=self._cancel, args=(message,), daemon=True).start()
        return True

    def _cancel(self, message: Cancel) -> None:
        self._send(CancelDone(message.call, self.attempts.cancel(message.attempt, _CANCEL_S)))

    def describe(self) -> dict[str, object]:
        """What /server_info adds."""
        tree = self.controller.cache.tree
        tiers = {tier.name.lower(): tree.num_pages(tier) for tier in Tier}
        return {"cached_pages": tiers["device"], "tier_pages": tiers, **self.policies()}

    def _add(self, request: PrefillRequest) -> None:
        """Take an attempt in, or refuse it at once."""
        attempt = self.attempts.add(request)
        if attempt is None:
            self._refuse(request, Refused(status=409, kind="cancelled", message="cancelled before"))
            return
        refusal = self._limits.refusal(request, len(self._waiting))
        if refusal is not None:
            self._refuse(request, refusal)
            self.attempts.remove(attempt)
            return
        keys = job_keys(request, self._page_size)
        job = Job(attempt=attempt, keys=keys, page_size=self._page_size)
        self.controller.look_up(job)
        self._waiting.append(job)

    def load(self) -> NodeLoad:
        """A snapshot for the router."""
        cache = self.controller.cache
        for tier in Tier:
            self._metrics.tier_pages.labels(tier.name.lower()).set(cache.tree.num_pages(tier))
        self._metrics.free_pages.set(cache.num_available)
        return NodeLoad(
            running=len(self._running) + len(self._sending),
            waiting=len(self._waiting),
            free_pages=cache.num_available,
            total_pages=cache.num_device_pages,
            offload_backlog_pages=self.controller.backlog,
        )

    def flush(self) -> tuple[int, int]:
        """Evict what is not in use: pages freed, pages that stayed."""
        return self.controller.cache.flush()

    def set_policies(
        self, prefetch_policy: PrefetchPolicy | None, write_policy: WritePolicy | None
    ) -> None:
        """Of the admin API; None leaves a policy as it is."""
        self.controller.set_policies(prefetch_policy, write_policy)

    def set_prefetch_limits(
        self,
        threshold: int | None,
        timeout_base: float | None,
        timeout_per_ki_token: float | None,
    ) -> None:
        """Of the admin API; None leaves a limit as it is."""
        self.controller.set_prefetch_limits(threshold, timeout_base, timeout_per_ki_token)

    def policies(self) -> dict[str, str]:
        """Those in force."""
        return self.controller.policies()

    def close(self, timeout_s: float) -> None:
        self.attempts.cancel_all()
        self.controller.close(timeout_s)

    # --- the loop ---------------------------------------------------------------------------

    def step(self) -> bool:
        """One turn; returns whether there was anything to compute."""
        self._collect()
        self._drop_cancelled()
        self.controller.turn()
        self._admit()
        self._tell_progress()
        wanted = [
            job
            for job in self._running
            if not job.attempt.is_cancelled and self.controller.tails.has_settled(job)
        ]
        takes = plan_chunks(
            wanted, self._config.chunk_tokens, self._page_size, self._parts.enough_tokens
        )
        chosen = [(job, take) for job, take in zip(wanted, takes, strict=True) if take]
        if not chosen:
            return False
        try:
            self._compute(chosen)
        except Exception:
            log.exception("a prefill step failed")
            self._metrics.faults.labels("prefill_step").inc()
            for job, _ in chosen:
                self._fail(job, Refused(status=500, kind="compute", message="prefill step failed"))
        return True

    def _admit(self) -> None:
        """Begin what can be computed now; what had better wait for its pages lets others pass."""
        now = time.monotonic()
        for job in list(self._waiting):
            if len(self._running) >= self._config.max_running_requests:
                return
            if self.controller.waits(job, now):
                continue
            if not self.controller.place(job):
                return
            self._waiting.remove(job)
            self._running.append(job)
            self._metrics.queue_seconds.observe(now - job.created_at)
            self._pushes.found(job)

    def _account(self, job: Job) -> None:
        assert job.lease is not None
        tail = job.lease.tail
        job.sources = prompt_sources(
            num_tokens=job.num_tokens,
            page_size=self._page_size,
            pages=job.lease.sources,
            num_held_pages=job.request.first_page,
            tail_tokens=tail.num_tokens if tail is not None else 0,
            tail_writer=tail.writer if tail is not None else "decode",
        )
        for writer in ("prefill", "decode"):
            num_tokens = job.lease.sources.count(writer) * self._page_size
            if tail is not None and tail.writer == writer:
                num_tokens += tail.num_tokens
            self._metrics.storage_hit_tokens.labels(writer).inc(num_tokens)

    def _compute(self, chosen: Sequence[tuple[Job, int]]) -> None:
        items = []
        for job, take in chosen:
            start, end = job.num_done, job.num_done + take
            segment = Segment(job.pages, start, take, end == job.num_tokens)
            items.append((job.request.prompt[start:end], segment))
        batch = make_batch(items, self._page_size, self._parts.kv.device)
        leases = [job.lease for job, _ in chosen if job.lease is not None]
        loads = [lease.load for lease in leases if lease.load is not None]
        is_loading = any(not load.is_done for load in loads)
        started = time.monotonic()

        def before_layer(layer: int) -> None:
            for load in loads:  # one that is done may have failed, and raises
                load.before_layer(layer)

        logits = self._parts.model.forward(
            batch, self._parts.kv, partial(self._push_layer, chosen), before_layer
        )
        self._parts.device_mark()()
        seconds = time.monotonic() - started
        self._metrics.step_seconds.observe(seconds)
        if not is_loading:  # a wait for pages would pass for slow computing
            self.controller.rates.computed(batch.num_tokens, seconds)
        for job, take in chosen:
            job.num_done += take
        self._finish([job for job, _ in chosen if job.num_done == job.num_tokens], logits)

    def _push_layer(self, chosen: Sequence[tuple[Job, int]], layer: int) -> None:
        now = time.monotonic()
        for job, _ in chosen:
            job.last_layer_at = now
        self._pushes.layer(chosen, layer)

    def _finish(self, jobs: list[Job], logits: torch.Tensor) -> None:
        if not jobs:
            return
        states = [SamplingState(job.request.sampling, job.request.prompt) for job in jobs]
        sampled = sample(logits, states, [job.num_tokens for job in jobs])
        for job, first in zip(jobs, sampled, strict=True):
            self._account(job)
            self.controller.publish(job)
            done = PrefillDone(
                first_token=first.token,
                logprob=first.logprob,
                sources=job.sources,
                storage=job.storage,
                last_layer_at=job.last_layer_at,
            )
            self._running.remove(job)
            self._sending.append(job)
            self._sender.flush(job.request.target.session, partial(self._end, job, done))

    # --- endings ----------------------------------------------------------------------------

    def _end(self, job: Job, done: PrefillDone) -> None:
        """On the sender's thread: all that was queued for the job has been written."""
        with job.attempt.writing() as allowed:
            if allowed:
                self._report(job.attempt, done)
        self._ended.put(job)

    def _collect(self) -> None:
        while not self._ended.empty():
            job = self._ended.get()
            self._sending.remove(job)
            self._forget(job)

    def _drop_cancelled(self) -> None:
        now = time.monotonic()
        for job in [*self._waiting, *self._running]:
            if now > job.attempt.deadline and not job.attempt.is_cancelled:
                late = Refused(status=429, kind="deadline", message="no prefill in time")
                self._fail(job, late)
            elif job.attempt.is_cancelled and (job.attempt.cancel(0) or job.attempt.is_tainted):
                self._forget(job)

    def _fail(self, job: Job, refusal: Refused) -> None:
        """Refuse, once no write is outstanding: decode takes it as the end of its quarantine."""
        if job.attempt.cancel(5.0):
            self._refuse(job.request, refusal)
            self._forget(job)

    def _fail_transfer(self, attempt: Attempt, error: Exception) -> None:
        """Nothing is said to decode: whatever is said would end the quarantine of its pages."""
        self._metrics.faults.labels("hand_off").inc()
        log.warning("request %s: %s", attempt.request.request_id, error)
        attempt.cancel(0)

    def _forget(self, job: Job) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
        elif job in self._running:
            self._running.remove(job)
        self.controller.forget(job)
        self.attempts.remove(job.attempt)

    # --- small parts ------------------------------------------------------------------------

    def _refuse(self, request: PrefillRequest, refusal: Refused) -> None:
        self._send(AttemptEvent(request.attempt, refusal))

    def _report(self, attempt: Attempt, event: PrefillEvent) -> None:
        self._send(AttemptEvent(attempt.request.attempt, event))

    def _tell_progress(self) -> None:
        if time.monotonic() - self._progress_at < _PROGRESS_S:
            return
        self._progress_at = time.monotonic()
        for job in self._waiting:
            prefetch = job.prefetch or job.follows
            is_late = prefetch is not None and not prefetch.is_done
            self._report(job.attempt, Progress(stage="prefetch" if is_late else "queued"))
        for job in self._running:
            self._report(job.attempt, Progress(stage="compute"))
