"""The prefill node's three tiers with every part real but the model, the clock and the store."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from deferred_mover import DeferredMover
from event_audit import EventAudit
from faulty_store import FaultyBackend, FaultyStore
from step_threads import Gate, GatedStore, WatchedWriter

from kvloop.engine.event_recorder import EventRecorder
from kvloop.engine.node_config import NodeConfig
from kvloop.engine.parts import NodeParts
from kvloop.prefill.attempt import Attempt
from kvloop.prefill.cache_controller import CacheController
from kvloop.prefill.job import Job, job_keys
from kvloop.shared_cache.guard import GuardConfig, GuardedBackend
from kvloop.shared_cache.hicache_names import HostLayout
from kvloop.shared_cache.host_pool import HostPool
from kvloop.shared_cache.keys import cache_seed
from kvloop.shared_cache.page_object import PageShape, seal
from kvloop.shared_cache.prefetch_policy import Rates
from kvloop.shared_cache.tail import Tail, record_name, tail_key, with_newest
from kvloop.shared_cache.wire import CacheMode, KVTarget, PrefillRequest, Role, Sampling

PAGE = 2
"""Tokens."""
SHAPE = PageShape(num_layers=2, page_size=PAGE, num_kv_heads=1, head_size=4, itemsize=2)
NAMESPACE = b"n" * 32
NEXT = 99
"""The token behind a prompt's pages; pages are of two tokens, so a tail has one."""
_BATCH = 2
"""Pages that a prefetch reads in one go."""
Content = npt.NDArray[np.uint8]
_GUARD = GuardConfig(
    deadline_s=0.1, num_threads=2, first_retry_s=0.005, max_retry_s=0.02, check_s=1000.0
)
_TARGET = KVTarget(session="s", base=0, layer_stride=0, kv_stride=0, page_bytes=1, pages=[0])


def content_of(key: bytes) -> Content:
    """The one true KV of a page: [layer, k|v, token, head, bytes]."""
    data = hashlib.shake_128(key).digest(SHAPE.payload_bytes)
    return np.frombuffer(data, np.uint8).reshape(SHAPE.num_layers, 2, PAGE, 1, -1)


def object_of(key: bytes, writer: Role) -> bytes:
    """The page as it lies in L3."""
    page = bytearray(SHAPE.slot_bytes)
    page[: SHAPE.payload_bytes] = content_of(key).tobytes()
    seal(memoryview(page), SHAPE, key, NAMESPACE, 0, writer)
    return bytes(page)


def holds(payload: Content, key: bytes) -> bool:
    """Whether this memory is the page, bit for bit."""
    return payload.tobytes() == content_of(key).tobytes()


def request_of(
    pages: Sequence[int],
    *,
    num_more: int = 1,
    cache: CacheMode = "on",
    tenant: str = "",
    priority: int = 0,
) -> PrefillRequest:
    """A prompt of full pages, each named by a small number, and `num_more` tokens behind them."""
    return PrefillRequest(
        request_id="r",
        attempt="a",
        prompt=[page for page in pages for _ in range(PAGE)] + [NEXT] * num_more,
        sampling=Sampling(max_tokens=1),
        namespace=NAMESPACE.hex(),
        cache=cache,
        cache_seed=_seed(tenant),
        tenant=tenant,
        priority=priority,
        target=_TARGET,
    )


def keys_of(pages: Sequence[int], tenant: str = "") -> list[bytes]:
    """Of the prompt's full pages."""
    return job_keys(request_of(pages, tenant=tenant), PAGE)


def store_tail(store: FaultyStore, parent: bytes | None, token: int = NEXT) -> bytes:
    """Decode stored the tail of a turn that ended behind this page; returns its key."""
    tail = Tail(1, tail_key(parent, [token]))
    store.put(tail.key, object_of(tail.key, "decode"))
    name = record_name(parent)
    store.records[name] = with_newest(store.records.get(name), tail)
    return tail.key


def _seed(tenant: str) -> str | None:
    seed = cache_seed(tenant or None, None)
    return seed.hex() if seed else None


class FixedRates(Rates):
    """Reading is far faster than computing, whatever is measured."""

    def __init__(self) -> None:
        super().__init__()
        self.compute_s_per_token, self.fetch_s_per_page = 1.0, 0.001
        self.fetch_latency_s = 0.0

    def fetched(self, num_pages: int, seconds: float) -> None: ...

    def answered(self, seconds: float) -> None: ...


@dataclass
class Recorder:
    """Stands where the node's metrics do."""

    pages: Counter[tuple[str, str]] = field(default_factory=Counter)
    unfulfilled: Counter[str] = field(default_factory=Counter)
    tails: Counter[str] = field(default_factory=Counter)

    def moved(self, path: str, result: str, pages: int, num_bytes: int, seconds: float) -> None:
        self.pages[path, result] += pages

    @property
    def prefetch_unfulfilled(self) -> Any:
        return _counter(self.unfulfilled)

    @property
    def tail_tokens(self) -> Any:
        return _counter(self.tails)


def _counter(counts: Counter[str]) -> Any:
    """As a metric with one label."""

    def labels(value: str) -> Any:
        return SimpleNamespace(inc=lambda n: counts.update({value: n}))

    return SimpleNamespace(labels=labels)


class HiCacheNode:
    """One start of a prefill node; `flags` are NodeConfig's.

    A slow store may hold half of the host slots, `min_storing` at least.
    """

    def __init__(
        self,
        store: FaultyStore | None,
        *,
        num_pages: int = 8,
        num_slots: int = 8,
        layout: HostLayout = "page_first_direct",
        flags: Mapping[str, Any] | None = None,
        rates: type[Rates] = FixedRates,
        min_storing: int = 1,
    ) -> None:
        self.config = NodeConfig(
            role="prefill",
            model="none",
            page_size=PAGE,
            max_total_tokens=num_pages * PAGE,
            **(flags or {}),
        )
        self.events = EventRecorder(PAGE, wants_tokens=True)
        self.heard = EventAudit(self.events, PAGE)
        self.pool = HostPool(SHAPE, num_slots, layout)
        self.staging = None if layout == "page_first_direct" else HostPool(SHAPE, 4)
        self.mover = DeferredMover(num_pages, self.pool)
        self.metrics = Recorder()
        self.gate = Gate()
        self.backends: list[FaultyBackend] = []
        self.guard = GuardedBackend(
            None, self._objects, name="faulty", namespace=NAMESPACE, config=_GUARD
        )
        self.store = GatedStore(
            self.guard, self.pool, namespace=NAMESPACE, writer="prefill", staging=self.staging
        )
        self.store.gate = self.gate
        if store is not None:
            self.attach(store)
        with (
            patch.multiple(
                "kvloop.prefill.cache_controller", StorageWriter=WatchedWriter, Rates=rates
            ),
            patch("kvloop.prefill.prefetch.Workers", self.gate.workers),
            patch("kvloop.prefill.tail_search.Workers", self.gate.workers),
            patch("kvloop.prefill.prefetch._BATCH_BYTES", SHAPE.slot_bytes * _BATCH),
            patch("kvloop.shared_cache.storage_marks._MIN_STORING", min_storing),
        ):
            self.controller = CacheController(self._parts(num_pages))
        self.cache = self.controller.cache
        self.tree = self.cache.tree
        self.writer = cast(WatchedWriter, self.controller._writer)
        self.prefetcher = self.controller._prefetcher
        self.controller.turn()

    # --- L3 -----------------------------------------------------------------------------------

    def attach(self, store: FaultyStore) -> None:
        """Put another store, or the same again, in the place of L3; waits until it serves."""

        def open_backend() -> FaultyBackend:
            self.backends.append(FaultyBackend(store, self._objects))
            return self.backends[-1]

        self.guard.attach(open_backend, "faulty")
        assert store.error is not None or store.is_stalled or self.guard.wait_attached(20)

    def settle(self, rounds: int = 40) -> None:
        """Turn until all that threads and moves can do has been done."""
        for _ in range(rounds):
            while self.gate.step(0):
                pass
            self.mover.finish()
            while self.writer.save_next():
                pass
            self.controller.turn()

    # --- requests -----------------------------------------------------------------------------

    def come(self, pages: Sequence[int], **fields: Any) -> Job:
        """A prompt comes and queues; fields are those of `request_of`."""
        request = request_of(pages, **fields)
        job = Job(attempt=Attempt(request), keys=job_keys(request, PAGE), page_size=PAGE)
        self.controller.look_up(job)
        return job

    def compute(self, job: Job) -> None:
        """Write what the prompt lacks into its pages, all that was found being there."""
        assert job.lease is not None
        if job.lease.load is not None:
            job.lease.load.await_layer(SHAPE.num_layers - 1)
        for index in range(len(job.lease.sources), len(job.lease.pages)):
            self.mover.write(job.lease.pages[index], page_content(job, index))

    def serve(self, pages: Sequence[int], **fields: Any) -> Job:
        """A whole request, from its coming to its release; nothing else runs meanwhile."""
        job = self.come(pages, **fields)
        while self.gate.step(0):
            self.controller.turn()
        self.controller.turn()
        assert not self.controller.waits(job, 0.0) and self.controller.place(job)
        self.compute(job)
        self.controller.publish(job)
        lease = job.lease
        self.controller.forget(job)
        job.lease = lease  # for a look at what it was
        return job

    def close(self) -> None:
        """End the threads; a crash where work was left."""
        for backend in self.backends:
            backend.is_dead = True
        self.gate.close()
        self.writer.crash()
        self.store.close(0.0)

    @property
    def _objects(self) -> HostPool:
        return self.staging or self.pool

    def _parts(self, num_pages: int) -> NodeParts:
        parts = SimpleNamespace(
            config=self.config,
            kv=SimpleNamespace(num_pages=num_pages),
            pool=self.pool,
            mover=self.mover,
            shape=SHAPE,
            store=self.store,
            metrics=self.metrics,
            events=self.events,
        )
        return cast(NodeParts, parts)


def page_content(job: Job, index: int) -> Content:
    """Of any page of a prompt, the last one too, which may be no full one and have no key."""
    if index < len(job.keys):
        return content_of(job.keys[index])
    return content_of(f"{id(job)} {index}".encode())
