"""Three tiers, real bytes, a faulty store: random histories against what each page must hold."""

from __future__ import annotations

from typing import Any

import pytest
from faulty_store import FaultyStore
from hicache_model import Audit, expected_sources
from hicache_node import HiCacheNode, keys_of, object_of, request_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from kvloop.prefill.job import Job
from kvloop.shared_cache.storage_errors import StorageUnavailable
from kvloop.shared_cache.tree_node import ABSENT, Tier

_MAX_JOBS = 5
_MUCH_LATER = 1e6
_EVICTION = st.sampled_from(["lru", "lfu", "slru", "priority"])
_WRITE = st.sampled_from(["write_through", "write_through_selective", "write_back"])
_PREFETCH = st.sampled_from(["best_effort", "timeout", "wait_complete"])
_LAYOUT = st.sampled_from(["page_first_direct", "page_first_direct", "layer_first"])
_QUOTAS: list[dict[str, int]] = [{}, {"a": 2, "*": 3}, {"b": 1}, {"*": 4}]
_TENANT = st.sampled_from(["", "", "", "a", "a", "b"])
_ANY = st.integers(0, 11)
"""Which of what there is; what is drawn never depends on what the threads did."""

prompts = st.lists(st.integers(0, 1), max_size=5)
requests = st.fixed_dictionaries(
    {
        "num_more": st.integers(0, 1),
        "cache": st.sampled_from(["on", "on", "on", "on", "l3_only", "off"]),
        "tenant": _TENANT,
        "priority": st.integers(0, 2),
    }
)


class TiersMachine(RuleBasedStateMachine):
    """Drives the controller as the scheduler's loop does, and everything below it."""

    def __init__(self) -> None:
        super().__init__()
        self.stores = [FaultyStore()]
        self.jobs: list[Job] = []
        self.computed: list[Job] = []
        self.from_decode: set[bytes] = set()
        self.failed_loads: list[Any] = []

    @initialize(
        policies=st.tuples(_EVICTION, _EVICTION, _WRITE, _PREFETCH),
        num_pages=st.integers(6, 9),
        num_slots=st.integers(3, 9),
        layout=_LAYOUT,
        quotas=st.sampled_from(_QUOTAS),
        share=st.sampled_from([0.3, 0.5, 1.0]),
        threshold=st.sampled_from([1, 4]),
        is_attached=st.booleans(),
    )
    def begin(self, policies, num_pages, num_slots, layout, is_attached, **flags: Any) -> None:  # type: ignore[no-untyped-def]
        device, host, write, prefetch = policies
        self.sizes = {"num_pages": num_pages, "num_slots": num_slots, "layout": layout}
        self.flags = {
            "radix_eviction_policy": device,
            "hicache_eviction_policy": host,
            "hicache_write_policy": write,
            "hicache_storage_prefetch_policy": prefetch,
            "hicache_tenant_quotas": flags["quotas"],
            "hicache_prefetch_share": flags["share"],
            "hicache_prefetch_threshold": flags["threshold"],
        }
        store = self.store if is_attached else None
        self.node = HiCacheNode(store, **self.sizes, flags=self.flags)

    @property
    def store(self) -> FaultyStore:
        return self.stores[-1]

    # --- requests -----------------------------------------------------------------------------

    @rule(pages=prompts, fields=requests)
    def come(self, pages: list[int], fields: dict[str, Any]) -> None:
        if len(self.jobs) < _MAX_JOBS and request_of(pages, **fields).prompt:
            self.jobs.append(self.node.come(pages, **fields))

    @rule(which=_ANY, is_late=st.booleans())
    def admit(self, which: int, is_late: bool) -> None:
        waiting = [job for job in self.jobs if job.lease is None]
        if waiting:
            self.place(waiting[which % len(waiting)], is_late)

    @rule(which=_ANY)
    def compute(self, which: int) -> None:
        job = self.any_job(which, is_computed=False)
        if job is None or job.lease is None:
            return
        try:
            self.node.compute(job)
        except Exception:
            self.leave(job)  # a step that failed is answered by a refusal
            return
        self.computed.append(job)

    @rule(which=_ANY)
    def publish(self, which: int) -> None:
        job = self.any_job(which, is_computed=True)
        if job is not None and not job.storage:
            self.node.controller.publish(job)

    @rule(which=_ANY)
    def end(self, which: int) -> None:
        """It is done, or cancelled: at any stage."""
        if self.jobs:
            self.leave(self.jobs[which % len(self.jobs)])

    @rule(pages=prompts, fields=requests, is_patient=st.booleans())
    def serve(self, pages: list[int], fields: dict[str, Any], is_patient: bool) -> None:
        """A whole request in one go, so that histories get somewhere."""
        self.come(pages, fields)
        if not self.jobs:
            return
        job = self.jobs[-1]
        while is_patient and self.node.gate.step(0):
            self.node.controller.turn()
        self.node.controller.turn()
        if job.lease is None:
            self.place(job, True)
        if job.lease is not None and not self.is_computed(job):
            self.compute(self.uncomputed().index(job))
        if self.is_computed(job) and not job.storage:
            self.node.controller.publish(job)

    # --- what goes on meanwhile -----------------------------------------------------------------

    @rule()
    def turn(self) -> None:
        self.node.controller.turn()

    @rule(which=_ANY, num=st.integers(1, 4))
    def thread_goes_on(self, which: int, num: int) -> None:
        for _ in range(num):
            self.node.gate.step(which)

    @rule(num=st.integers(1, 3))
    def runs_are_saved(self, num: int) -> None:
        for _ in range(num):
            self.node.writer.save_next()

    @rule(which=_ANY, what=st.sampled_from(["layer", "layer", "end", "end", "fail", "at_once"]))
    def move_goes_on(self, which: int, what: str) -> None:
        moves = self.node.mover.under_way()
        self.node.mover.fails_at_once = what == "at_once"
        if moves and what != "at_once":
            move = moves[which % len(moves)]
            {"layer": move.step, "end": move.finish, "fail": move.fail}[what]()

    # --- L3 -----------------------------------------------------------------------------------

    @rule(fault=st.sampled_from(["error", "stall", "no_room", "claims_all"]), ends=st.booleans())
    def store_errs(self, fault: str, ends: bool) -> None:
        if ends:
            self.store.heal()
            assert self.node.guard.state == "detached" or self.node.guard.wait_attached(20)
        elif fault == "error":
            self.store.error = StorageUnavailable("broken by a test")
        elif fault == "stall":
            self.store.stall()
        else:
            self.store.has_room = fault != "no_room"
            self.store.claims_all = fault == "claims_all"

    @rule(which=_ANY, at=st.integers(0, 4095), is_gone=st.booleans())
    def page_is_lost_or_damaged(self, which: int, at: int, is_gone: bool) -> None:
        keys = sorted(self.store.pages)
        if keys and is_gone:
            del self.store.pages[keys[which % len(keys)]]
        elif keys:
            self.store.damage(keys[which % len(keys)], at)

    @rule(pages=prompts, tenant=_TENANT)
    def decode_writes(self, pages: list[int], tenant: str) -> None:
        for key in keys_of(pages, tenant):
            self.from_decode.add(key)
            self.store.put(key, object_of(key, "decode"))

    @rule(how=st.sampled_from(["cleared", "detached", "attached", "replaced", "replaced"]))
    def l3_changes(self, how: str) -> None:
        if how == "cleared" and self.node.guard.clear(1.0) == "cleared":
            self.store.ever.clear()
        elif how == "detached":
            self.node.guard.detach(0.0)
        elif how in ("attached", "replaced"):
            if how == "replaced":
                self.stores.append(FaultyStore())
            self.node.attach(self.store)

    # --- the node -----------------------------------------------------------------------------

    @rule(write=_WRITE, prefetch=_PREFETCH, is_flushed=st.booleans())
    def operator_acts(self, write: Any, prefetch: Any, is_flushed: bool) -> None:
        if is_flushed:
            self.node.cache.flush()
        else:
            self.node.controller.set_policies(prefetch, write)

    @rule()
    def crash(self) -> None:
        """Nothing is left but what lies in L3."""
        self.node.close()
        self.store.heal()
        self.jobs, self.computed = [], []
        self.node = HiCacheNode(self.store, **self.sizes, flags=self.flags)

    @invariant()
    def all_is_as_it_must_be(self) -> None:
        Audit(self.node, self.jobs, self.computed, self.stores).check()

    def teardown(self) -> None:
        if not hasattr(self, "node"):
            return
        try:
            self.nothing_stays_behind()
        finally:
            for store in self.stores:
                store.heal()
            self.node.close()

    def nothing_stays_behind(self) -> None:
        """L2 reaches a store that comes late, whatever went before, and no page is lost."""
        for store in self.stores:
            store.heal()
        for job in list(self.jobs):
            self.leave(job)
        self.node.settle()
        self.stores.append(FaultyStore())
        self.node.attach(self.store)
        self.node.settle()
        self.all_is_as_it_must_be()
        for node in self.node.tree.nodes(Tier.HOST):
            for index, slot in enumerate(node.values[Tier.HOST]):
                assert slot == ABSENT or node.key(index) in self.store.saved, "not offered to L3"
        self.node.cache.flush()
        assert self.node.cache._device.num_free == self.node.cache.num_device_pages
        assert self.node.pool.num_free == self.node.pool.num_slots

    # --- small parts --------------------------------------------------------------------------

    def place(self, job: Job, is_late: bool) -> None:
        now = (job.ready_at or 1.0) + (_MUCH_LATER if is_late else 0.0)
        if self.node.controller.waits(job, now):
            assert not is_late or job.ready_at == now
            return
        expected = expected_sources(self.node, job)
        if self.node.controller.place(job):
            assert job.lease is not None and job.lease.sources == expected
            self.sources_are_true(job)

    def sources_are_true(self, job: Job) -> None:
        assert job.lease is not None
        for key, source in zip(job.keys, job.lease.sources, strict=False):
            if source == "decode":
                assert key in self.from_decode
            elif source == "prefill":
                assert any(key in store.saved for store in self.stores)
            else:
                assert job.request.cache == "on"

    def leave(self, job: Job) -> None:
        self.jobs = [other for other in self.jobs if other is not job]
        self.computed = [other for other in self.computed if other is not job]
        self.node.controller.forget(job)

    def is_computed(self, job: Job) -> bool:
        return any(job is other for other in self.computed)

    def uncomputed(self) -> list[Job]:
        return [job for job in self.jobs if job.lease is not None and not self.is_computed(job)]

    def any_job(self, which: int, is_computed: bool) -> Job | None:
        jobs = self.computed if is_computed else self.uncomputed()
        return jobs[which % len(jobs)] if jobs else None


_SETTINGS = settings(
    deadline=None,
    stateful_step_count=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_no_history_loses_a_page_or_serves_another_ones_bytes() -> None:
    run_machine(TiersMachine, settings=settings(_SETTINGS, max_examples=300))


@pytest.mark.slow
def test_no_long_history_loses_a_page_or_serves_another_ones_bytes() -> None:
    run_machine(TiersMachine, settings=settings(_SETTINGS, max_examples=2400))
