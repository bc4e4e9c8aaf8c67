"""The decode node's loop: reserve, hand off, generate, offload; every request is owned here."""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable

import msgspec
import torch

from kvloop.decode.hand_off import HandOff, HandOffTrace
from kvloop.decode.offload import Offload
from kvloop.decode.quarantine import Quarantine
from kvloop.decode.request import OwnedRequest, Stage
from kvloop.engine.batch import Segment, make_batch
from kvloop.engine.chunks import plan_chunks
from kvloop.engine.device_cache import DeviceCache
from kvloop.engine.messages import (
    Abort,
    Answer,
    AskPrefill,
    AttemptQuiet,
    GiveUp,
    HandOffBroken,
    HandOffEvent,
    Submit,
    ToEngine,
    ToFront,
)
from kvloop.engine.page_blocks import layer_checksum
from kvloop.engine.parts import NodeParts
from kvloop.engine.sampling import Sampled, SamplingState, sample
from kvloop.engine.transfer import Transfer
from kvloop.shared_cache.errors import TransferError
from kvloop.shared_cache.keys import page_keys
from kvloop.shared_cache.wire import (
    Finished,
    GenerateEvent,
    GenerateRequest,
    KVTarget,
    NodeLoad,
    PrefillDone,
    PrefillRequest,
    Progress,
    PromptSources,
    Pushed,
    Refused,
    Started,
    TokenLogprob,
    Tokens,
)

log = logging.getLogger("kvloop.decode")
_TRACES = 64


class DecodeScheduler:
    """Everything is touched by the loop thread only."""

    def __init__(
        self, parts: NodeParts, transfer: Transfer, send: Callable[[ToFront], None]
    ) -> None:
        self._parts, self._transfer, self._send = parts, transfer, send
        self._config, self._metrics = parts.config, parts.metrics
        self._page_size = parts.config.page_size
        self.cache = DeviceCache(parts.kv.num_pages)
        self._waiting: deque[OwnedRequest] = deque()
        self._active: dict[str, OwnedRequest] = {}
        """Reserved: in hand-off, in local prefill, or running."""
        self._quarantine = Quarantine()
        self._offload = Offload(parts)
        self.traces: deque[HandOffTrace] = deque(maxlen=_TRACES)

    # --- what the front sends ---------------------------------------------------------------

    def handle(self, message: ToEngine) -> None:
        """A message of the front, on the loop thread."""
        if isinstance(message, Submit):
            self._add(message.request)
        elif isinstance(message, Abort):
            self._abort(message.request_id)
        elif isinstance(message, HandOffEvent):
            self._hand_off_event(message)
        elif isinstance(message, HandOffBroken):
            self._hand_off_broken(message)
        else:
            assert isinstance(message, AttemptQuiet), message
            self.cache.free(self._quarantine.release(message.attempt))

    def intercept(self, message: ToEngine) -> bool:
        """Nothing here needs the link's own thread."""
        return False

    def describe(self) -> dict[str, object]:
        """What /server_info adds."""
        return {"cached_pages": self.cache.num_cached, "hand_offs": list(self.traces)}

    def _add(self, request: GenerateRequest) -> None:
        """Take a request in, or refuse it at once."""
        refusal = self._refusal(request)
        if refusal is not None:
            self._answer(request.request_id, refusal)
            return
        self._waiting.append(self._own(request))

    def _abort(self, request_id: str) -> None:
        """The client is gone: free what is its, by the rules of the hand-off."""
        for owner in self._waiting:
            if owner.request_id == request_id:
                self._waiting.remove(owner)
                return
        active = self._active.get(request_id)
        if active is None:
            return
        if active.hand_off is not None:
            self._give_up(active, active.hand_off)
        self._finish(active, Finished(reason="abort", completion_tokens=len(active.output)))

    def _hand_off_event(self, message: HandOffEvent) -> None:
        """A line of an attempt's stream; lines of attempts given up are ignored."""
        owner = self._active.get(message.request_id)
        if owner is None or owner.hand_off is None or owner.hand_off.attempt != message.attempt:
            return
        hand_off = owner.hand_off
        hand_off.heard_at = time.monotonic()
        try:
            self._take(owner, hand_off, message)
        except TransferError as error:
            self._metrics.faults.labels("hand_off").inc()
            self._retry(owner, hand_off, str(error))

    def _hand_off_broken(self, message: HandOffBroken) -> None:
        """The stream ended early: the prefill node may be dead, or merely cut off."""
        owner = self._active.get(message.request_id)
        if owner and owner.hand_off and owner.hand_off.attempt == message.attempt:
            self._metrics.faults.labels("hand_off").inc()
            self._retry(owner, owner.hand_off, message.reason)

    def load(self) -> NodeLoad:
        """A snapshot for the router."""
        self._metrics.offload_backlog.set(self._offload.backlog)
        self._metrics.quarantined.set(self._quarantine.num_pages)
        self._metrics.free_pages.set(self.cache.num_available)
        return NodeLoad(
            running=len(self._active),
            waiting=len(self._waiting),
            free_pages=self.cache.num_available,
            total_pages=self.cache.num_pages,
            offload_backlog_pages=self._offload.backlog,
            quarantined_pages=self._quarantine.num_pages,
        )

    def flush(self) -> tuple[int, int]:
        """Evict what is not in use: pages freed, pages that stayed."""
        return self.cache.flush()

    def close(self, timeout_s: float) -> None:
        self._offload.stop(timeout_s)

    # --- the loop ---------------------------------------------------------------------------

    def step(self) -> bool:
        """One turn; returns whether there was anything to compute."""
        self._expire()
        self._admit()
        for owner in self._offload.turn():
            self._release(owner)
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

    def _plan(self) -> list[tuple[OwnedRequest, list[int], Segment]]:
        """Each running request's last token, and a chunk of the prompts computed here."""
        batch = []
        for owner in self._active.values():
            if owner.stage is Stage.RUNNING:
                segment = Segment(owner.pages, owner.num_kv, 1, True)
                batch.append((owner, [owner.last_token], segment))
        local = [o for o in self._active.values() if o.stage is Stage.LOCAL_PREFILL]
        takes = plan_chunks(local, self._config.chunk_tokens, self._page_size)
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

    # --- reservation ------------------------------------------------------------------------

    def _admit(self) -> None:
        while self._waiting and len(self._active) < self._config.max_running_requests:
            owner = self._waiting[0]
            if not self._reserve(owner):
                return
            self._waiting.popleft()
            self._active[owner.request_id] = owner
            self._metrics.queue_seconds.observe(time.monotonic() - owner.waiting_since)
            self._next_attempt(owner)

    def _reserve(self, owner: OwnedRequest) -> bool:
        """All pages that the request can need, or none: a running request is never preempted."""
        matched = self.cache.match(owner.reusable_keys) if owner.reads_device else []
        self.cache.lock(owner.keys[: len(matched)])
        fresh = self.cache.reserve(owner.num_pages - len(matched), matched[-1] if matched else None)
        if fresh is None:
            self.cache.unlock(owner.keys[: len(matched)])
            return False
        owner.num_matched = len(matched)
        owner.pages = matched + fresh
        return True

    def _expire(self) -> None:
        now = time.monotonic()
        for owner in list(self._waiting):
            if now - owner.waiting_since > self._config.reserve_timeout_s:
                self._waiting.remove(owner)
                self._answer(owner.request_id, _busy("no KV pages became free in time"))
        for owner in list(self._active.values()):
            hand_off = owner.hand_off
            if hand_off is not None and hand_off.is_stalled(now, self._config.hand_off_stall_s):
                self._metrics.faults.labels("hand_off_stall").inc()
                self._retry(owner, hand_off, f"silent for {self._config.hand_off_stall_s} s")

    # --- hand-off ---------------------------------------------------------------------------

    def _next_attempt(self, owner: OwnedRequest) -> None:
        """Ask the next prefill node; with none left compute the prompt here."""
        if not owner.candidates:
            self._metrics.fallbacks.labels("local_prefill").inc()
            owner.stage, owner.num_done = Stage.LOCAL_PREFILL, owner.num_matched * self._page_size
            return
        candidate = owner.candidates.popleft()
        kv = self._parts.kv
        offered = owner.pages[owner.num_matched : owner.num_prompt_pages]
        owner.hand_off = HandOff(
            attempt=secrets.token_hex(8),
            candidate=candidate,
            first_page=owner.num_matched,
            pages=offered,
            num_layers=self._parts.num_layers,
            page_bytes=kv.page_bytes,
        )
        owner.stage = Stage.HAND_OFF
        target = KVTarget(
            session=self._transfer.session,
            base=kv.address,
            layer_stride=kv.layer_stride,
            kv_stride=kv.kv_stride,
            page_bytes=kv.page_bytes,
            pages=offered,
        )
        self._send(AskPrefill(candidate.url, self._prefill_request(owner, target)))

    def _prefill_request(self, owner: OwnedRequest, target: KVTarget) -> PrefillRequest:
        assert owner.hand_off is not None
        request = owner.request
        return PrefillRequest(
            request_id=request.request_id,
            attempt=owner.hand_off.attempt,
            prompt=request.prompt,
            sampling=request.sampling,
            namespace=request.namespace,
            generation=request.generation,
            cache_seed=request.cache_seed,
            cache=request.cache,
            first_page=owner.num_matched,
            target=target,
            timeout_s=request.timeout_s,
        )

    def _take(self, owner: OwnedRequest, hand_off: HandOff, message: HandOffEvent) -> None:
        event = message.event
        if isinstance(event, Pushed):
            hand_off.take(
                event,
                lambda layer, pages: layer_checksum(self._parts.kv, layer, pages),
                message.received_at,
            )
        elif isinstance(event, PrefillDone):
            trace = hand_off.finish(owner.request_id, event, message.received_at)
            self.traces.append(trace)
            self._count_hand_off(trace)
            self._begin(owner, hand_off, event)
        elif isinstance(event, Refused):
            # A refusal says that nothing is outstanding: the same pages may be offered again.
            self._metrics.fallbacks.labels("prefill_refused").inc()
            log.warning(
                "request %s: %s refused: %s", owner.request_id, hand_off.candidate.url, event
            )
            owner.hand_off = None
            owner.num_failed += 1
            self._next_attempt(owner)
        else:
            assert isinstance(event, Progress)

    def _count_hand_off(self, trace: HandOffTrace) -> None:
        seconds = trace.done_at - trace.asked_at
        self._metrics.moved("hand_off", "received", trace.pages, trace.bytes, seconds)
        self._metrics.hand_off_seconds.observe(seconds)

    def _retry(self, owner: OwnedRequest, hand_off: HandOff, reason: str) -> None:
        """Fresh pages and a new attempt; the old pages stay in quarantine."""
        log.warning(
            "request %s: hand-off from %s failed: %s",
            owner.request_id,
            hand_off.candidate.url,
            reason,
        )
        owner.num_failed += 1
        self._give_up(owner, hand_off)
        fresh = self.cache.reserve(len(hand_off.pages))
        if fresh is not None:
            owner.pages[owner.num_matched : owner.num_matched] = fresh
            self._next_attempt(owner)
            return
        del self._active[owner.request_id]
        self._drop_pages(owner)
        owner.stage, owner.waiting_since = Stage.WAITING, time.monotonic()
        self._waiting.appendleft(owner)

    def _give_up(self, owner: OwnedRequest, hand_off: HandOff) -> None:
        """The offered pages leave the request for the quarantine; the front gets the promise."""
        start = owner.num_matched
        del owner.pages[start : start + len(hand_off.pages)]
        self._quarantine.hold(hand_off.attempt, hand_off.pages)
        owner.hand_off = None
        self._send(
            GiveUp(
                hand_off.candidate.url,
                hand_off.candidate.incarnation,
                owner.request_id,
                hand_off.attempt,
            )
        )

    # --- generation -------------------------------------------------------------------------

    def _begin(self, owner: OwnedRequest, hand_off: HandOff, done: PrefillDone) -> None:
        owner.hand_off, owner.storage = None, done.storage
        fallback = "prefill_retry" if owner.num_failed else None
        if fallback:
            self._metrics.fallbacks.labels(fallback).inc()
        self._start(owner, done.sources, hand_off.candidate.url, fallback)
        self._append(owner, done.first_token, done.logprob)

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

    def _end(self, owner: OwnedRequest) -> None:
        del self._active[owner.request_id]
        was_running = owner.stage is Stage.RUNNING
        owner.stage = Stage.ENDED
        if was_running:
            self._offload.page_filled(owner)
            self._offload.close(owner)
            if self._offload.holds(owner):
                return
        self._release(owner)

    def _refuse_active(self, owner: OwnedRequest, message: str) -> None:
        if owner.request_id in self._active:
            refusal = Refused(status=500, kind="compute", message=message)
            self._answer(owner.request_id, refusal)
            self._end(owner)

    # --- pages ------------------------------------------------------------------------------

    def _release(self, owner: OwnedRequest) -> None:
        """Cache the full pages of a request that got its KV; free the rest."""
        if not owner.output or owner.request.cache == "off":
            self._drop_pages(owner)
            return
        full = min(len(owner.keys), owner.num_kv // self._page_size)
        duplicates = self.cache.insert(owner.keys[:full], owner.pages[:full])
        mine = set(owner.pages[owner.num_matched :])
        self.cache.unlock(owner.keys[: owner.num_matched])
        self.cache.free([page for page in duplicates if page in mine] + owner.pages[full:])
        owner.pages = []

    def _drop_pages(self, owner: OwnedRequest) -> None:
        """Free all that a request holds."""
        self.cache.unlock(owner.keys[: owner.num_matched])
        self.cache.free(owner.pages[owner.num_matched :])
        owner.pages, owner.num_matched = [], 0

    # --- small parts ------------------------------------------------------------------------

    def _own(self, request: GenerateRequest) -> OwnedRequest:
        sampling = request.sampling
        if sampling.seed is None:
            sampling = msgspec.structs.replace(sampling, seed=secrets.randbits(63))
            request = msgspec.structs.replace(request, sampling=sampling)
        seed = bytes.fromhex(request.cache_seed) if request.cache_seed else None
        keys = [] if request.cache == "off" else page_keys(request.prompt, self._page_size, seed)
        return OwnedRequest(
            request=request,
            page_size=self._page_size,
            keys=keys,
            candidates=deque(request.prefills),
            sampling=SamplingState(sampling, request.prompt),
        )

    def _refusal(self, request: GenerateRequest) -> Refused | None:
        identity = self._parts.identity
        if (request.namespace, request.generation) != (identity.namespace, identity.generation):
            return _wrong(409, "namespace", "this node's namespace or generation is another one")
        longest = len(request.prompt) + request.sampling.max_tokens
        if not request.prompt or request.sampling.max_tokens < 1:
            return _wrong(400, "empty", "prompt and max_tokens must be at least one token")
        if longest > self._parts.max_context:
            return _wrong(
                400,
                "context_length",
                f"prompt and max_tokens need {longest} tokens, the context holds "
                f"{self._parts.max_context}",
            )
        if -(-longest // self._page_size) > self.cache.num_pages:
            return _wrong(
                400,
                "pool",
                f"prompt and max_tokens need {longest} tokens, this node's pool holds "
                f"{self.cache.num_pages * self._page_size} (--max-total-tokens)",
            )
        if len(self._waiting) >= self._config.max_queued_requests:
            return _busy("this node's queue is full")
        return None

    def _answer(self, request_id: str, event: GenerateEvent) -> None:
        self._send(Answer(request_id, event))


def _busy(message: str) -> Refused:
    return Refused(status=429, kind="busy", message=message, retry_after_s=1.0)


def _wrong(status: int, kind: str, message: str) -> Refused:
    return Refused(status=status, kind=kind, message=message)
