"""The decode node's loop: reserve, hand off, generate, offload; every request is owned here."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

import torch

from kvloop.decode.admission import Limits, busy, own
from kvloop.decode.hand_offs import HandOffs
from kvloop.decode.offload import Offload
from kvloop.decode.request import OwnedRequest, Stage
from kvloop.decode.request_pages import RequestPages
from kvloop.decode.tail import Tails
from kvloop.engine.batch import Segment, make_batch
from kvloop.engine.chunks import plan_chunks
from kvloop.engine.messages import (
    Abort,
    Answer,
    AttemptQuiet,
    CheckPages,
    HandOffBroken,
    HandOffEvent,
    Submit,
    ToEngine,
    ToFront,
)
from kvloop.engine.page_check_device import check_device
from kvloop.engine.parts import NodeParts
from kvloop.engine.sampling import Sampled, sample
from kvloop.engine.transfer import Transfer
from kvloop.shared_cache.hicache_names import PrefetchPolicy, WritePolicy
from kvloop.shared_cache.wire import (
    Finished,
    GenerateEvent,
    GenerateRequest,
    NodeLoad,
    PrefillDone,
    PromptSources,
    Refused,
    Started,
    TokenLogprob,
    Tokens,
)

log = logging.getLogger("kvloop.decode")
_LAST_TURN_S = 0.5
"""A request waits so long at most for the pages that its session's last turn has left."""


class DecodeScheduler:
    """Everything is touched by the loop thread only."""

    def __init__(
        self, parts: NodeParts, transfer: Transfer, send: Callable[[ToFront], None]
    ) -> None:
        self._parts, self._send = parts, send
        self._config, self._metrics = parts.config, parts.metrics
        self._page_size = parts.config.page_size
        policy = parts.config.radix_eviction_policy
        self._pages = RequestPages(parts.kv.num_pages, policy, parts.events)
        self._limits = Limits(
            namespace=parts.identity.namespace,
            generation=parts.identity.generation,
            max_context=parts.max_context,
            pool_tokens=parts.kv.num_pages * self._page_size,
            vocab_size=parts.loaded.config.vocab,
        )
        self._waiting: deque[OwnedRequest] = deque()
        self._active: dict[str, OwnedRequest] = {}
        """Reserved: in hand-off, in local prefill, or running."""
        self._hand_offs = HandOffs(parts, transfer, self._pages, send, self)
        self._offload = Offload(parts)
        self._tails = Tails(parts)

    # --- what the front sends ---------------------------------------------------------------

    def handle(self, message: ToEngine) -> None:
        """A message of the front, on the loop thread."""
        if isinstance(message, Submit):
            self._add(message.request)
        elif isinstance(message, Abort):
            self._abort(message.request_id)
        elif isinstance(message, HandOffEvent):
            self._hand_offs.event(self._active.get(message.request_id), message)
        elif isinstance(message, HandOffBroken):
            self._hand_offs.broken(self._active.get(message.request_id), message)
        elif isinstance(message, CheckPages):
            self._send(check_device(self._parts, self._pages.cache, message))
        else:
            assert isinstance(message, AttemptQuiet), message
            self._hand_offs.quiet(message.attempt)

    def intercept(self, message: ToEngine) -> bool:
        """Nothing here needs the link's own thread."""
        return False

    def set_policies(
        self, prefetch_policy: PrefetchPolicy | None, write_policy: WritePolicy | None
    ) -> None:
        """The admin API refuses both on a decode node: it has neither policy."""
        assert prefetch_policy is None and write_policy is None

    def set_prefetch_limits(
        self,
        threshold: int | None,
        timeout_base: float | None,
        timeout_per_ki_token: float | None,
    ) -> None:
        """Nothing to limit; both roles are given one extra config."""

    def policies(self) -> dict[str, str]:
        """None here."""
        return {}

    def describe(self) -> dict[str, object]:
        """What /server_info adds."""
        cached = self._pages.cache.num_cached
        return {
            "cached_pages": cached,
            "hand_offs": list(self._hand_offs.traces),
            "hand_off_failures": list(self._hand_offs.failures),
        }

    def load(self) -> NodeLoad:
        """A snapshot for the router."""
        cache, quarantined = self._pages.cache, self._hand_offs.quarantine.num_pages
        self._metrics.offload_backlog.set(self._offload.backlog)
        pool = self._parts.pool
        self._metrics.offload_staging.set(pool.num_slots - pool.num_free)
        self._metrics.quarantined.set(quarantined)
        self._metrics.free_pages.set(cache.num_available)
        return NodeLoad(
            running=len(self._active),
            waiting=len(self._waiting),
            free_pages=cache.num_available,
            total_pages=cache.num_pages,
            offload_backlog_pages=self._offload.backlog,
            quarantined_pages=quarantined,
        )

    def flush(self) -> tuple[int, int]:
        """Evict what is not in use: pages freed, pages that stayed."""
        return self._pages.cache.flush()

    def close(self, timeout_s: float) -> None:
        """Store the full pages of all requests, running ones too, within the deadline."""
        for owner in list(self._active.values()):
            self._end(owner)
        for owner in self._offload.drain(timeout_s):
            self._pages.release(owner)
        self._offload.stop()

    def _add(self, request: GenerateRequest) -> None:
        """Take a request in, or refuse it at once."""
        refusal = self._limits.refusal(request)
        if refusal is None and len(self._waiting) >= self._config.max_queued_requests:
            refusal = busy("this node's queue is full")
        if refusal is not None:
            self._answer(request.request_id, refusal)
        else:
            owner = own(request, self._page_size)
            if owner.candidates:
                owner.last_turn = self._offload.last_turn(owner.keys)
            self._waiting.append(owner)

    def _abort(self, request_id: str) -> None:
        """The client is gone: free what is its, by the rules of the hand-off."""
        for owner in self._waiting:
            if owner.request_id == request_id:
                self._waiting.remove(owner)
                return
        active = self._active.get(request_id)
        if active is not None:
            self._hand_offs.give_up(active)
            self._finish(active, Finished(reason="abort", completion_tokens=len(active.output)))

    # --- the loop ---------------------------------------------------------------------------

    def step(self) -> bool:
        """One turn; returns whether there was anything to compute."""
        self._expire()
        self._admit()
        for owner in self._offload.turn():
            self._pages.release(owner)
        batch = self._plan()
        if not batch:
            return False
        try:
            self._compute(batch)
        except Exception:
            log.exception("a decode step failed")
            self._metrics.faults.labels("decode_step").inc()
            for owner, _, _ in batch:
                self._refuse_active(owner, "decode step failed")
        return True

    def _expire(self) -> None:
        now = time.monotonic()
        for owner in list(self._waiting):
            if now - owner.waiting_since > self._config.reserve_timeout_s:
                self._waiting.remove(owner)
                self._answer(owner.request_id, busy("no KV pages became free in time"))
        self._hand_offs.expire(self._active.values())

    def _admit(self) -> None:
        now = time.monotonic()
        for owner in list(self._waiting):
            waited_s = now - owner.waiting_since
            if len(self._active) >= self._config.max_running_requests:
                return
            if self._is_early(owner, waited_s):
                continue
            if not self._pages.reserve(owner):
                self._offload.hurry(waited_s)
                return
            self._waiting.remove(owner)
            self._active[owner.request_id] = owner
            self._metrics.queue_seconds.observe(waited_s)
            self._hand_offs.start(owner)

    def _is_early(self, owner: OwnedRequest, waited_s: float) -> bool:
        """Whether prefill would soon find more of its session's last turn in L3 than now.

        A client that asks on at once is quicker than the store; its pages would be computed again.
        """
        wait_s = min(_LAST_TURN_S, self._config.reserve_timeout_s / 2)
        turn = owner.last_turn
        if turn is None or waited_s > wait_s or not self._offload.is_soon(turn, wait_s):
            owner.last_turn = None
        return owner.last_turn is not None

    def _plan(self) -> list[tuple[OwnedRequest, list[int], Segment]]:
        """Each running request's last token, and a chunk of the prompts computed here."""
        batch = []
        for owner in self._active.values():
            if owner.stage is Stage.RUNNING:
                segment = Segment(owner.pages, owner.num_kv, 1, True)
                batch.append((owner, [owner.last_token], segment))
        local = [o for o in self._active.values() if o.stage is Stage.LOCAL_PREFILL]
        takes = plan_chunks(
            local, self._config.chunk_tokens, self._page_size, self._parts.enough_tokens
        )
        for owner, take in zip(local, takes, strict=True):
            if take:
                start, end = owner.num_done, owner.num_done + take
                segment = Segment(owner.pages, start, take, end == owner.num_prompt)
                batch.append((owner, owner.request.prompt[start:end], segment))
        return batch

    def _compute(self, batch: list[tuple[OwnedRequest, list[int], Segment]]) -> None:
        packed = make_batch(
            [(ids, segment) for _, ids, segment in batch], self._page_size, self._parts.kv.device
        )
        started = time.monotonic()
        logits = self._parts.model.forward(packed, self._parts.kv, None)
        self._metrics.step_seconds.observe(time.monotonic() - started)
        for owner, _, segment in batch:
            if owner.stage is Stage.LOCAL_PREFILL:
                owner.num_done += segment.length
        self._sample([owner for owner, _, segment in batch if segment.wants_logits], logits)

    def _sample(self, owners: list[OwnedRequest], logits: torch.Tensor) -> None:
        if not owners:
            return
        positions = [owner.num_prompt + len(owner.output) for owner in owners]
        sampled = sample(logits, [owner.sampling for owner in owners], positions)
        for owner, one in zip(owners, sampled, strict=True):
            if owner.stage is Stage.LOCAL_PREFILL:
                self._begin_local(owner, one)
            else:
                self._append(owner, one.token, one.logprob)

    # --- a request's life, once its prompt's KV is here ----------------------------------------

    def begin(self, owner: OwnedRequest, prefill_node: str, done: PrefillDone) -> None:
        """The hand-off is done: the first token came with it."""
        fallback = "prefill_retry" if owner.num_failed else None
        if fallback:
            self._metrics.fallbacks.labels(fallback).inc()
        self._start(owner, done.sources, prefill_node, fallback)
        self._append(owner, done.first_token, done.logprob)

    def requeue(self, owner: OwnedRequest) -> None:
        """A retry found no fresh pages: wait for some, before all others."""
        del self._active[owner.request_id]
        owner.stage, owner.waiting_since = Stage.WAITING, time.monotonic()
        self._waiting.appendleft(owner)

    def _begin_local(self, owner: OwnedRequest, first: Sampled) -> None:
        held = owner.num_matched * self._page_size
        sources = PromptSources(computed=owner.num_prompt - held, transfer_skipped=held)
        owner.storage = ["will_not"] * (owner.num_prompt // self._page_size)
        self._start(owner, sources, None, "local_prefill")
        self._append(owner, first.token, first.logprob)

    def _start(
        self,
        owner: OwnedRequest,
        sources: PromptSources,
        prefill_node: str | None,
        fallback: str | None,
    ) -> None:
        for name in ("computed", "device", "host", "storage", "transfer_skipped"):
            self._metrics.prompt_tokens.labels(name).inc(getattr(sources, name))
        started = Started(
            sources=sources,
            prefill_node=prefill_node,
            decode_node=self._config.url,
            fallback=fallback,
        )
        self._answer(owner.request_id, started)
        owner.stage, owner.handed_off_at = Stage.RUNNING, time.monotonic()
        self._pages.publish(owner)
        self._offload.start(owner)

    def _append(self, owner: OwnedRequest, token: int, logprob: TokenLogprob | None) -> None:
        owner.output.append(token)
        owner.sampling.add(token)
        sampling = owner.request.sampling
        ends = () if sampling.ignore_eos else self._parts.loaded.config.eos_token_ids
        if token in ends or token in sampling.stop_token_ids:
            stopped = Finished(reason="stop", completion_tokens=len(owner.output), stop_token=token)
            self._finish(owner, stopped)
            return
        self._answer(owner.request_id, Tokens(ids=[token], logprobs=[logprob] if logprob else []))
        if len(owner.output) >= sampling.max_tokens:
            self._finish(owner, Finished(reason="length", completion_tokens=len(owner.output)))
        elif owner.num_kv % self._page_size == 0:
            self._offload.page_filled(owner)

    def _finish(self, owner: OwnedRequest, event: Finished) -> None:
        self._answer(owner.request_id, event)
        self._end(owner)

    def _refuse_active(self, owner: OwnedRequest, message: str) -> None:
        if owner.request_id in self._active:
            refusal = Refused(status=500, kind="compute", message=message)
            self._answer(owner.request_id, refusal)
            self._end(owner)

    def _end(self, owner: OwnedRequest) -> None:
        del self._active[owner.request_id]
        was_running = owner.stage is Stage.RUNNING
        owner.stage = Stage.ENDED
        if was_running:
            self._pages.finish(owner)
            extra = self._tails.of(owner, self._offload.storable(owner))
            self._offload.close(owner, extra)
            if self._offload.holds(owner):
                return
        self._pages.release(owner)

    def _answer(self, request_id: str, event: GenerateEvent) -> None:
        self._send(Answer(request_id, event))
