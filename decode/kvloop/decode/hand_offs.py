"""Getting prompts' KV from prefill nodes: ask one after the other, verify, retry, quarantine."""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from kvloop.decode.hand_off import HandOff, HandOffFailure, HandOffTrace
from kvloop.decode.quarantine import Quarantine
from kvloop.decode.request import OwnedRequest, Stage
from kvloop.decode.request_pages import RequestPages
from kvloop.engine.messages import AskPrefill, GiveUp, HandOffBroken, HandOffEvent, ToFront
from kvloop.engine.page_blocks import layer_checksum
from kvloop.engine.parts import NodeParts
from kvloop.engine.transfer import Transfer
from kvloop.shared_cache.errors import TransferError
from kvloop.shared_cache.wire import (
    KVTarget,
    PrefillDone,
    PrefillRequest,
    Progress,
    Pushed,
    Refused,
)

log = logging.getLogger("kvloop.decode")
_TRACES = 64


class HandOffOwner(Protocol):
    """Whom the outcome of a hand-off concerns."""

    def begin(self, owner: OwnedRequest, prefill_node: str, done: PrefillDone) -> None:
        """The prompt's KV is here and verified."""

    def requeue(self, owner: OwnedRequest) -> None:
        """A retry found no fresh pages: the request holds none, and waits again."""


class HandOffs:
    """The loop thread's; each request has at most one attempt at a time."""

    def __init__(
        self,
        parts: NodeParts,
        transfer: Transfer,
        pages: RequestPages,
        send: Callable[[ToFront], None],
        outcome: HandOffOwner,
    ) -> None:
        self._parts, self._transfer, self._pages = parts, transfer, pages
        self._send, self._outcome = send, outcome
        self._metrics = parts.metrics
        self.quarantine = Quarantine()
        self.traces: deque[HandOffTrace] = deque(maxlen=_TRACES)
        self.failures: deque[HandOffFailure] = deque(maxlen=_TRACES)

    def start(self, owner: OwnedRequest) -> None:
        """Ask the next prefill node; with none left the prompt is to be computed here."""
        if not owner.candidates:
            self._metrics.fallbacks.labels("local_prefill").inc()
            owner.stage, owner.num_done = Stage.LOCAL_PREFILL, owner.num_matched * owner.page_size
            return
        hand_off = owner.hand_off = HandOff(
            attempt=secrets.token_hex(8),
            candidate=owner.candidates.popleft(),
            first_page=owner.num_matched,
            pages=owner.pages[owner.num_matched : owner.num_prompt_pages],
            num_layers=self._parts.num_layers,
            page_bytes=self._parts.kv.page_bytes,
        )
        owner.stage = Stage.HAND_OFF
        self._send(AskPrefill(hand_off.candidate.url, self._request(owner, hand_off)))

    def event(self, owner: OwnedRequest | None, message: HandOffEvent) -> None:
        """A line of an attempt's stream; lines of attempts given up are ignored."""
        hand_off = _current(owner, message.attempt)
        if owner is None or hand_off is None:
            return
        hand_off.heard_at = time.monotonic()
        try:
            self._take(owner, hand_off, message)
        except TransferError as error:
            self._metrics.faults.labels("hand_off").inc()
            self._retry(owner, hand_off, str(error))

    def broken(self, owner: OwnedRequest | None, message: HandOffBroken) -> None:
        """The stream ended early: the prefill node may be dead, or merely cut off."""
        hand_off = _current(owner, message.attempt)
        if owner is not None and hand_off is not None:
            self._metrics.faults.labels("hand_off").inc()
            self._retry(owner, hand_off, message.reason)

    def expire(self, owners: Iterable[OwnedRequest]) -> None:
        """Retry elsewhere what has been silent for too long."""
        now, stall_s = time.monotonic(), self._parts.config.hand_off_stall_s
        for owner in list(owners):
            hand_off = owner.hand_off
            if hand_off is not None and hand_off.is_stalled(now, stall_s):
                self._metrics.faults.labels("hand_off_stall").inc()
                self._retry(owner, hand_off, f"silent for {stall_s} s")

    def give_up(self, owner: OwnedRequest) -> None:
        """Put the offered pages in quarantine; the front asks until the sender is quiet."""
        hand_off = owner.hand_off
        if hand_off is None:
            return
        self._pages.take_offered(owner, hand_off.pages)
        self.quarantine.hold(hand_off.attempt, hand_off.pages)
        owner.hand_off = None
        candidate = hand_off.candidate
        self._send(GiveUp(candidate.url, candidate.incarnation, owner.request_id, hand_off.attempt))

    def quiet(self, attempt: str) -> None:
        """No write of the attempt is outstanding: its pages are free."""
        self._pages.cache.free(self.quarantine.release(attempt))

    def _take(self, owner: OwnedRequest, hand_off: HandOff, message: HandOffEvent) -> None:
        event = message.event
        if isinstance(event, Pushed):
            hand_off.take(event, self._checksum, message.received_at)
        elif isinstance(event, PrefillDone):
            self._count(hand_off.finish(owner.request_id, event, message.received_at))
            owner.hand_off, owner.storage = None, event.storage
            self._outcome.begin(owner, hand_off.candidate.url, event)
        elif isinstance(event, Refused):
            self._refused(owner, hand_off, event)
        else:
            assert isinstance(event, Progress)

    def _checksum(self, layer: int, pages: list[int]) -> int:
        return layer_checksum(self._parts.kv, layer, pages)

    def _refused(self, owner: OwnedRequest, hand_off: HandOff, refusal: Refused) -> None:
        """A refusal says that nothing is outstanding: the same pages may be offered again."""
        self._metrics.fallbacks.labels("prefill_refused").inc()
        url = hand_off.candidate.url
        log.warning("request %s: %s refused: %s", owner.request_id, url, refusal)
        reason = f"refused: {refusal.message}"
        self.failures.append(HandOffFailure(owner.request_id, url, reason, refusal.status))
        owner.hand_off = None
        owner.num_failed += 1
        self.start(owner)

    def _retry(self, owner: OwnedRequest, hand_off: HandOff, reason: str) -> None:
        """Fresh pages and a new attempt; the old pages stay in quarantine."""
        url = hand_off.candidate.url
        log.warning("request %s: hand-off from %s failed: %s", owner.request_id, url, reason)
        self.failures.append(HandOffFailure(owner.request_id, url, reason))
        owner.num_failed += 1
        self.give_up(owner)
        if self._pages.replace_offered(owner, len(hand_off.pages)):
            self.start(owner)
        else:
            self._pages.release(owner)
            self._outcome.requeue(owner)

    def _count(self, trace: HandOffTrace) -> None:
        self.traces.append(trace)
        seconds = trace.done_at - trace.asked_at
        self._metrics.moved("hand_off", "received", trace.pages, trace.bytes, seconds)
        self._metrics.hand_off_seconds.observe(seconds)

    def _request(self, owner: OwnedRequest, hand_off: HandOff) -> PrefillRequest:
        request = owner.request
        return PrefillRequest(
            request_id=request.request_id,
            attempt=hand_off.attempt,
            prompt=request.prompt,
            sampling=request.sampling,
            namespace=request.namespace,
            generation=request.generation,
            cache_seed=request.cache_seed,
            cache=request.cache,
            tenant=request.tenant,
            priority=request.priority,
            first_page=hand_off.first_page,
            target=self._target(hand_off.pages),
            timeout_s=request.timeout_s,
        )

    def _target(self, pages: list[int]) -> KVTarget:
        kv = self._parts.kv
        return KVTarget(
            session=self._transfer.session,
            base=kv.address,
            layer_stride=kv.layer_stride,
            kv_stride=kv.kv_stride,
            page_bytes=kv.page_bytes,
            pages=pages,
        )


def _current(owner: OwnedRequest | None, attempt: str) -> HandOff | None:
    """The request's attempt, where it still is that one."""
    hand_off = owner.hand_off if owner is not None else None
    return hand_off if hand_off is not None and hand_off.attempt == attempt else None
