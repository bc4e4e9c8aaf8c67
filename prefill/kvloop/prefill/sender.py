"""Pushes layers of KV to decode nodes while later layers are still computed."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kvloop.engine.kv_pool import KVPool
from kvloop.engine.metrics import NodeMetrics
from kvloop.engine.page_blocks import layer_blocks, layer_checksum
from kvloop.engine.transfer import Transfer
from kvloop.prefill.attempt import Attempt
from kvloop.shared_cache.wire import PrefillEvent, Pushed

_IDLE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One layer of a run of prompt pages, local and theirs, ready to be sent."""

    attempt: Attempt
    layer: int
    first: int
    """Index in the prompt of the first page."""
    pages: Sequence[int]
    target_pages: Sequence[int]
    is_ready: Callable[[], None]
    """Returns once the device has written the layer."""
    computed_at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class Flush:
    """Runs `then` when all that was queued before it for the session has been sent."""

    then: Callable[[], None]


class Sender:
    """One thread for each decode session, so that a slow peer delays its own requests only."""

    def __init__(
        self,
        transfer: Transfer,
        kv: KVPool,
        metrics: NodeMetrics,
        report: Callable[[Attempt, PrefillEvent], None],
        fail: Callable[[Attempt, Exception], None],
    ) -> None:
        self._transfer, self._kv, self._metrics = transfer, kv, metrics
        self._report, self._fail = report, fail
        self._queues: dict[str, queue.SimpleQueue[Push | Flush]] = {}
        self._lock = threading.Lock()

    def push(self, push: Push) -> None:
        """Queue a layer; its event is reported when it has been written."""
        self._enqueue(push.attempt.request.target.session, push)

    def flush(self, session: str, then: Callable[[], None]) -> None:
        """Call `then` on the session's thread after everything queued so far."""
        self._enqueue(session, Flush(then))

    def _enqueue(self, session: str, item: Push | Flush) -> None:
        with self._lock:
            jobs = self._queues.get(session)
            if jobs is None:
                jobs = self._queues[session] = queue.SimpleQueue()
                threading.Thread(target=self._serve, args=(session, jobs), daemon=True).start()
            jobs.put(item)

    def _serve(self, session: str, jobs: queue.SimpleQueue[Push | Flush]) -> None:
        while True:
            try:
                item = jobs.get(timeout=_IDLE_S)
            except queue.Empty:
                with self._lock:
                    if jobs.empty():
                        del self._queues[session]
                        return
                continue
            if isinstance(item, Flush):
                item.then()
            else:
                self._send(item)

    def _send(self, push: Push) -> None:
        with push.attempt.writing() as allowed:
            if not allowed:
                return
            try:
                event = self._write(push)
            except Exception as error:
                # A batch fails with its first block: others of it may still be under way.
                push.attempt.taint()
                self._fail(push.attempt, error)
                return
        self._report(push.attempt, event)

    def _write(self, push: Push) -> Pushed:
        push.is_ready()
        target = push.attempt.request.target
        blocks = layer_blocks(self._kv, target, push.layer, push.pages, push.target_pages)
        started = time.monotonic()
        self._transfer.write(target.session, blocks)
        num_bytes = 2 * self._kv.page_bytes * len(push.pages)
        self._metrics.moved("hand_off", "sent", 0, num_bytes, time.monotonic() - started)
        if push.layer == 0:
            self._metrics.pages.labels("hand_off", "sent").inc(len(push.pages))
        return Pushed(
            layer=push.layer,
            first=push.first,
            count=len(push.pages),
            checksum=layer_checksum(self._kv, push.layer, push.pages),
            computed_at=push.computed_at,
        )
