"""Three tiers, real bytes, a faulty store: random histories against what each page must hold."""

from __future__ import annotations

from typing import Any

import pytest
from examples import examples
from faulty_store import FaultyStore
from hicache_choices import ANY, EVICTION, LAYOUT, PREFETCH, QUOTAS, WRITE, prompts, requests
from hicache_model import Audit, expected_sources
from hicache_node import NEXT, SHAPE, HiCacheNode, keys_of, object_of, store_tail
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from kvloop.prefill.job import Job
from kvloop.shared_cache.errors import TransferError
from kvloop.shared_cache.storage_errors import StorageUnavailable
from kvloop.shared_cache.tree_node import ABSENT, Tier

_MAX_JOBS = 5
_MUCH_LATER = 1e6


class TiersMachine(RuleBasedStateMachine):
    """Drives the controller as the scheduler's loop does, and everything below it."""

    def __init__(self) -> None:
        super().__init__()
        self.stores = [FaultyStore()]
        self.jobs: list[Job] = []
        self.computed: list[Job] = []
        self.from_decode: set[bytes] = set()

    @initialize(
        policies=st.tuples(EVICTION, EVICTION, WRITE, PREFETCH),
        num_pages=st.integers(6, 7),
        num_slots=st.integers(3, 9),
        layout=LAYOUT,
        quotas=st.sampled_from(QUOTAS),
        share=st.sampled_from([0.3, 0.5, 1.0, 1.0]),
        threshold=st.sampled_from([1, 4]),
        has_tails=st.sampled_from([True, True, False]),
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
            "tail_objects": flags["has_tails"],
        }
        store = self.store if is_attached else None
        self.node = HiCacheNode(store, **self.sizes, flags=self.flags)

    @property
    def store(self) -> FaultyStore:
        return self.stores[-1]

    # --- requests -----------------------------------------------------------------------------

    @rule(pages=prompts, fields=requests)
    def come(self, pages: list[int], fields: dict[str, Any]) -> None:
        if len(self.jobs) == _MAX_JOBS:
            self.leave(self.jobs[0])
        self.jobs.append(self.node.come(pages, **fields))

    @rule(
        pages=prompts,
        fields=requests,
        num_steps=st.integers(0, 12),
        num_lacking=st.sampled_from([0, 0, 1, 2]),
        is_placed=st.booleans(),
        is_replaced=st.sampled_from([False, False, True]),
    )
    def come_back(
        self,
        pages: list[int],
        fields: dict[str, Any],
        num_steps: int,
        num_lacking: int,
        is_placed: bool,
        is_replaced: bool,
    ) -> None:
        """A prompt that decode has written to L3, up to inside a page, and that is read there."""
        keys = keys_of(pages, fields["tenant"])
        written = keys[: len(keys) - num_lacking]
        for key in written:
            self.from_decode.add(key)
            self.store.put(key, object_of(key, "decode"))
        if written:
            store_tail(self.store, written[-1], [*pages, NEXT][len(written)])
        self.come(pages, fields)
        self.wait(self.jobs[-1], num_steps)
        if is_placed:
            self.advance(self.jobs[-1], False)
        if is_replaced:
            self.l3_is("replaced")

    @rule(
        pages=prompts,
        fields=requests,
        num_lacking=st.sampled_from([1, 1, 1, 0, 2]),
        num_steps=st.integers(0, 4),
        is_quiet=st.sampled_from([True, True, False]),
    )
    def continue_turn(
        self,
        pages: list[int],
        fields: dict[str, Any],
        num_lacking: int,
        num_steps: int,
        is_quiet: bool,
    ) -> None:
        """A prompt gets what there is of the turn before, begins inside a page, and goes on."""
        if is_quiet:
            self.all_is_well()
            self.serve(pages[: len(pages) - num_lacking], fields, 6, False)
            self.node.settle(2)
        self.come_back(pages, fields, 12, num_lacking, True, False)
        job = self.jobs[-1]
        for _ in range(num_steps):
            self.advance(job, False)

    def all_is_well(self) -> None:
        """Nobody else is here, and L3 serves."""
        for job in list(self.jobs):
            self.leave(job)
        self.store.heal()
        if self.node.guard.state == "detached":
            self.node.attach(self.store)
        assert self.node.guard.wait_attached(20)

    @rule(which=ANY, is_late=st.booleans(), num=st.integers(1, _MAX_JOBS))
    def go_on(self, which: int, is_late: bool, num: int) -> None:
        """Some requests take their next step."""
        for index in range(which, which + num):
            if self.jobs:
                self.advance(self.jobs[index % len(self.jobs)], is_late)

    @rule(which=ANY)
    def cancel(self, which: int) -> None:
        """At any stage."""
        if self.jobs:
            self.leave(self.jobs[which % len(self.jobs)])

    @rule(pages=prompts, fields=requests, num_steps=st.integers(0, 6), is_kept=st.booleans())
    def serve(
        self, pages: list[int], fields: dict[str, Any], num_steps: int, is_kept: bool
    ) -> None:
        """A whole request in one go, so that histories get somewhere."""
        self.come(pages, fields)
        job = self.jobs[-1]
        self.wait(job, num_steps)
        for _ in range(5):
            if not (is_kept and job.storage):
                self.advance(job, True)

    @rule(pages=st.tuples(prompts, prompts, prompts), fields=requests)
    def serve_some(self, pages: tuple[list[int], ...], fields: dict[str, Any]) -> None:
        """Much fits into neither pool: pages leave."""
        for prompt in pages:
            self.serve(prompt, fields, 6, False)
            self.all_is_as_it_must_be()

    # --- what goes on meanwhile -----------------------------------------------------------------

    @rule(which=ANY, num_steps=st.integers(0, 4), num_saves=st.integers(0, 3))
    def time_passes(self, which: int, num_steps: int, num_saves: int) -> None:
        """Threads go on, each for itself, and the loop has a turn."""
        for _ in range(num_steps):
            self.node.gate.step(which)
        for _ in range(num_saves):
            self.node.writer.save_next()
        self.node.controller.turn()

    @rule(which=ANY, is_save=st.booleans())
    def thread_goes_on(self, which: int, is_save: bool) -> None:
        """And the loop has not noticed yet."""
        if is_save:
            self.node.writer.save_next()
        else:
            self.node.gate.step(which)

    @rule(which=ANY, what=st.sampled_from(["layer", "layer", "end", "end", "fail", "at_once"]))
    def move_goes_on(self, which: int, what: str) -> None:
        moves = self.node.mover.under_way()
        self.node.mover.fails_at_once = what == "at_once"
        if moves and what != "at_once":
            move = moves[which % len(moves)]
            {"layer": move.step, "end": move.finish, "fail": move.fail}[what]()

    # --- L3 -----------------------------------------------------------------------------------

    @rule(
        fault=st.sampled_from(["error", "stall", "no_room", "claims_all", "page"]),
        which=ANY,
        at=st.integers(0, SHAPE.payload_bytes + 100),
        is_good=st.booleans(),
    )
    def l3_errs(self, fault: str, which: int, at: int, is_good: bool) -> None:
        if fault == "page":
            self.pages_are_lost_or_damaged(which, at, is_good)
        elif is_good:
            self.store.heal()
            assert self.node.guard.state == "detached" or self.node.guard.wait_attached(20)
        elif fault == "error":
            self.store.error = StorageUnavailable("broken by a test")
        elif fault == "stall":
            self.store.stall()
        else:
            self.store.has_room = fault != "no_room"
            self.store.claims_all = fault == "claims_all"

    def pages_are_lost_or_damaged(self, which: int, at: int, is_lost: bool) -> None:
        for key in sorted(self.store.pages)[which % 3 :: 2]:
            if is_lost:
                del self.store.pages[key]
            else:
                self.store.damage(key, at)

    @rule(how=st.sampled_from(["cleared", "detached", "attached", "replaced", "replaced"]))
    def l3_changes(self, how: str) -> None:
        self.l3_is(how)

    def l3_is(self, how: str) -> None:
        if how == "cleared" and self.node.guard.clear(1.0) == "cleared":
            self.store.ever.clear()
        elif how == "detached":
            self.node.guard.detach(0.0)
        elif how in ("attached", "replaced"):
            if how == "replaced":
                self.stores.append(FaultyStore())
            self.node.attach(self.store)

    @rule(
        what=st.sampled_from(["flush", "policies", "policies", "crash", "torn"]),
        write=WRITE,
        prefetch=PREFETCH,
        at=st.integers(0, SHAPE.payload_bytes + 100),
    )
    def node_changes(self, what: str, write: Any, prefetch: Any, at: int) -> None:
        if what == "flush":
            self.node.cache.flush()
        elif what == "policies":
            self.node.controller.set_policies(prefetch, write)
        else:
            self.crash()
        for key in sorted(self.store.pages)[::2] if what == "torn" else ():
            self.store.damage(key, at)

    def crash(self) -> None:
        """Nothing is left but what lies in L3."""
        self.node.close()
        for store in self.stores:  # the calls of the dead end, in those that L3 was before, too
            store.heal()
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

    def advance(self, job: Job, is_late: bool) -> None:
        if not any(job is other for other in self.jobs):
            return
        if job.lease is None:
            self.place(job, is_late)
        elif not self.is_computed(job):
            self.compute(job)
        elif not job.storage:
            self.node.controller.publish(job)
            assert job.lease is not None
            assert "stored" not in job.storage[len(job.lease.sources) :], "had to be computed"
        else:
            self.leave(job)

    def wait(self, job: Job, num_steps: int) -> None:
        """It queues while threads take so many steps; pages come first, then a tail."""
        for _ in range(num_steps):
            self.node.gate.step(-1)
            self.node.controller.turn()
            self.node.controller.waits(job, job.ready_at or 1.0)

    def place(self, job: Job, is_late: bool) -> None:
        if not is_late and self.node.controller.waits(job, job.ready_at or 1.0):
            return
        is_ready = (
            not self.node.controller.waits(job, turn * _MUCH_LATER) for turn in range(1, 12)
        )
        assert any(is_ready), "waits for ever"
        self.node.cache.poll()  # backups that have failed leave no pages, as the lease finds too
        expected = expected_sources(self.node, job)
        if self.node.controller.place(job):
            assert job.lease is not None and job.lease.sources == expected
            self.sources_are_true(job)

    def compute(self, job: Job) -> None:
        if not self.node.controller.tails.has_settled(job):
            assert job.lease is not None and job.lease.tail_load is not None
            job.lease.tail_load.step()  # type: ignore[attr-defined]
            if not self.node.controller.tails.has_settled(job):
                return
        try:
            self.node.compute(job)
        except TransferError:
            self.leave(job)  # a step that failed is answered by a refusal
        else:
            self.computed.append(job)

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


_SETTINGS = settings(
    deadline=None,
    stateful_step_count=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_no_history_loses_a_page_or_serves_another_ones_bytes() -> None:
    run_machine(TiersMachine, settings=settings(_SETTINGS, max_examples=examples(160)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_long_history_loses_a_page_or_serves_another_ones_bytes() -> None:
    run_machine(TiersMachine, settings=settings(_SETTINGS, max_examples=4000))
