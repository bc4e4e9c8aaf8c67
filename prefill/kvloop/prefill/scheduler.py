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
from kvloop.engine.device_cache import DeviceCache
from kvloop.engine.messages import Attempt as AttemptMessage
from kvloop.engine.messages import AttemptEvent, Cancel, CancelDone, ToEngine, ToFront
from kvloop.engine.metrics import NodeMetrics
from kvloop.engine.parts import NodeParts
from kvloop.engine.sampling import SamplingState, sample
from kvloop.engine.transfer import Transfer
from kvloop.prefill.attempt import Attempt, Attempts
from kvloop.prefill.job import Job, job_keys
from kvloop.prefill.prefetch import Prefetch, Prefetcher
from kvloop.prefill.sender import Push, Sender
from kvloop.prefill.sources import prompt_sources
from kvloop.prefill.written import Written
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
    """Owns the device pool; everything but `attempts` is touched by the loop thread only."""

    def __init__(
        self, parts: NodeParts, transfer: Transfer, send: Callable[[ToFront], None]
    ) -> None:
        self._parts, self._send = parts, send
        self._config = parts.config
        self._metrics: NodeMetrics = parts.metrics
        self._page_size = parts.config.page_size
        self.cache = DeviceCache(parts.kv.num_pages)
        self.attempts = Attempts()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._sending: list[Job] = []
        self._ended: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._prefetcher = Prefetcher(parts.store, parts.pool)
        self._written = Written(parts)
        self._sender = Sender(transfer, parts.kv, parts.metrics, self._report, self._fail_transfer)
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
        return {"cached_pages": self.cache.num_cached}

    def _add(self, request: PrefillRequest) -> None:
        """Take an attempt in, or refuse it at once."""
        attempt = self.attempts.add(request)
        if attempt is None:
            self._refuse(request, Refused(status=409, kind="cancelled", message="cancelled before"))
            return
        refusal = self._refusal(request)
        if refusal is not None:
            self._refuse(request, refusal)
            self.attempts.remove(attempt)
            return
        keys = job_keys(request, self._page_size)
        job = Job(
            attempt=attempt,
            keys=keys,
            prefetch=Prefetch(self._parts.pool),
            page_size=self._page_size,
        )
        known = len(self.cache.match(job.reusable_keys)) if job.reads_device else 0
        job.prefetch = self._prefetcher.start(job.reusable_keys[known:])
        job.num_matched = known
        self._waiting.append(job)

    def load(self) -> NodeLoad:
        """A snapshot for the router."""
        return NodeLoad(
            running=len(self._running) + len(self._sending),
            waiting=len(self._waiting),
            free_pages=self.cache.num_available,
            total_pages=self.cache.num_pages,
            offload_backlog_pages=self._written.backlog,
        )

    def flush(self) -> tuple[int, int]:
        """Evict what is not in use: pages freed, pages that stayed."""
        return self.cache.flush()

    def close(self, timeout_s: float) -> None:
        self.attempts.cancel_all()
        self._prefetcher.close()
        self._written.close(timeout_s)

    # --- the loop ---------------------------------------------------------------------------

    def step(self) -> bool:
        """One turn; returns whether there was anything to compute."""
        self._collect()
        self._drop_cancelled()
        self._admit()
        self._tell_progress()
        wanted = [job for job in self._running if not job.attempt.is_cancelled]
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
        for job in [job for job in self._waiting if job.prefetch.is_done]:
            if len(self._running) >= self._config.max_running_requests or not self._place(job):
                return
            self._waiting.remove(job)
            self._running.append(job)
            self._metrics.queue_seconds.observe(time.monotonic() - job.created_at)
            self._push_prefix(job)

    def _place(self, job: Job) -> bool:
        """Lock what the tree holds, reserve the rest, fill in what the shared cache gave."""
        matched = self.cache.match(job.reusable_keys) if job.reads_device else []
        self.cache.lock(job.keys[: len(matched)])
        fresh = self.cache.reserve(job.num_pages - len(matched), matched[-1] if matched else None)
        if fresh is None:
            self.cache.unlock(job.keys[: len(matched)])
            return False
        loaded = job.prefetch.take()
        overlap = len(matched) - job.num_matched
        # The tree changed while the job queued: what joins on is used, the rest computed again.
        usable = loaded[overlap:] if overlap >= 0 else []
        self._parts.mover.load_back(fresh[: len(usable)], [slot for slot, _ in usable]).wait()
        self._parts.pool.free([slot for slot, _ in loaded])
        job.num_matched = len(matched)
        job.pages = matched + fresh
        job.writers = [writer for _, writer in usable]
        job.num_done = (len(matched) + len(usable)) * self._page_size
        job.sources = prompt_sources(
            num_tokens=job.num_tokens,
            page_size=self._page_size,
            num_device_pages=len(matched),
            writers=job.writers,
            num_held_pages=job.request.first_page,
        )
        self._count(job)
        return True

    def _count(self, job: Job) -> None:
        for writer in job.writers:
            self._metrics.storage_hit_tokens.labels(writer).inc(self._page_size)

    def _compute(self, chosen: Sequence[tuple[Job, int]]) -> None:
        items = []
        for job, take in chosen:
            start, end = job.num_done, job.num_done + take
            segment = Segment(job.pages, start, take, end == job.num_tokens)
            items.append((job.request.prompt[start:end], segment))
        batch = make_batch(items, self._page_size, self._parts.kv.device)
        started = time.monotonic()
        logits = self._parts.model.forward(
            batch, self._parts.kv, lambda layer: self._push_layer(chosen, layer)
        )
        self._metrics.step_seconds.observe(time.monotonic() - started)
        for job, take in chosen:
            job.num_done += take
        self._finish([job for job, _ in chosen if job.num_done == job.num_tokens], logits)

    def _finish(self, jobs: list[Job], logits: torch.Tensor) -> None:
        if not jobs:
            return
        states = [SamplingState(job.request.sampling, job.request.prompt) for job in jobs]
        sampled = sample(logits, states, [job.num_tokens for job in jobs])
        for job, first in zip(jobs, sampled, strict=True):
            job.storage = self._written.prompt(job)
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

    # --- pushing ----------------------------------------------------------------------------

    def _push_prefix(self, job: Job) -> None:
        for layer in range(self._parts.num_layers):
            self._push(job, layer, 0, job.num_done // self._page_size)

    def _push_layer(self, chosen: Sequence[tuple[Job, int]], layer: int) -> None:
        now = time.monotonic()
        for job, take in chosen:
            job.last_layer_at = now
            end = -(-(job.num_done + take) // self._page_size)
            self._push(job, layer, job.num_done // self._page_size, end)

    def _push(self, job: Job, layer: int, start: int, end: int) -> None:
        start = max(start, job.request.first_page)
        if start >= end:
            return
        offset = job.request.first_page
        self._sender.push(
            Push(
                attempt=job.attempt,
                layer=layer,
                first=start,
                pages=job.pages[start:end],
                target_pages=job.request.target.pages[start - offset : end - offset],
                is_ready=self._parts.device_mark(),
            )
        )

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
            self._release(job, keep=True)

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
        job.prefetch.drop()
        self._release(job, keep=False)

    def _release(self, job: Job, keep: bool) -> None:
        locked = job.keys[: job.num_matched] if job.pages else []
        own = job.pages[job.num_matched :]
        if keep and job.keys:
            full = job.num_full_pages
            rest = self.cache.insert(job.keys, job.pages[:full])
            mine = set(job.pages[job.num_matched :])
            own = [page for page in rest if page in mine] + job.pages[full:]
        self.cache.unlock(locked)
        self.cache.free(own)
        self.attempts.remove(job.attempt)

    # --- small parts ------------------------------------------------------------------------

    def _refusal(self, request: PrefillRequest) -> Refused | None:
        identity = self._parts.identity
        if (request.namespace, request.generation) != (identity.namespace, identity.generation):
            return Refused(
                status=409,
                kind="namespace",
                message=f"namespace {request.namespace[:12]} generation {request.generation!r} "
                f"asked, this node is {identity.namespace[:12]} {identity.generation!r}",
            )
        if -(-len(request.prompt) // self._page_size) > self.cache.num_pages:
            return Refused(
                status=400,
                kind="too_long",
                message=f"prompt of {len(request.prompt)} tokens, this node's pool holds "
                f"{self.cache.num_pages * self._page_size} (--max-total-tokens)",
            )
        if len(self._waiting) >= self._config.max_queued_requests:
            return Refused(status=429, kind="queue", message="queue full", retry_after_s=1.0)
        return None

    def _refuse(self, request: PrefillRequest, refusal: Refused) -> None:
        self._send(AttemptEvent(request.attempt, refusal))

    def _report(self, attempt: Attempt, event: PrefillEvent) -> None:
        self._send(AttemptEvent(attempt.request.attempt, event))

    def _tell_progress(self) -> None:
        if time.monotonic() - self._progress_at < _PROGRESS_S:
            return
        self._progress_at = time.monotonic()
        for job in self._waiting:
            queued = Progress(stage="queued" if job.prefetch.is_done else "prefetch")
            self._report(job.attempt, queued)
        for job in self._running:
            self._report(job.attempt, Progress(stage="compute"))
