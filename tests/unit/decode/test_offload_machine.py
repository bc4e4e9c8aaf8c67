"""Requests, copies, calls and faults in any order: nothing leaks, nothing wrong is stored."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from examples import examples
from faulty_store import FaultyStore
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from offload_node import SHORT_S, Dues, OffloadNode, is_right

from kvloop.decode.offload import Extra
from kvloop.decode.request import OwnedRequest
from kvloop.shared_cache.storage_errors import StorageUnavailable
from kvloop.shared_cache.wire import StripRule

_ANY = st.integers(0, 11)
_PROMPTS = st.sampled_from([[1, 2], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 9, 9, 9, 9], [6]])
_FIELDS = st.sampled_from(
    [{}] * 6
    + [{"cache": "off"}, {"cache": "l3_only"}, {"returns": False}]
    + [{"strip": StripRule(opens=(8, 8), closes=(50,))}, {"strip": StripRule(kept_prompt=2)}]
)
_STATES = st.sampled_from(["stored", "storing", "will_not"])


class OffloadMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.dues = Dues()
        self.dues.patches.start()
        self.stores = [FaultyStore()]
        self.live: list[OwnedRequest] = []
        self.ended: list[OwnedRequest] = []
        self.extras: list[list[bool]] = []

    @initialize(
        limit=st.sampled_from([None, 1, 2, 5]),
        pressure=st.sampled_from(["delay", "drop_newest", "drop_oldest"]),
        policy=st.sampled_from(["answer", "all", "selective"]),
        retries=st.integers(0, 3),
    )
    def begin(self, limit: int | None, pressure: Any, policy: Any, retries: int) -> None:
        self.limit = limit or 12
        self.node = OffloadNode(
            self.stores[0],
            call_s=SHORT_S,
            offload_staging_pages=limit,
            offload_back_pressure=pressure,
            offload_policy=policy,
            offload_retries=retries,
            offload_deadline_s=5.0,
        )

    @property
    def store(self) -> FaultyStore:
        return self.stores[-1]

    # --- requests -------------------------------------------------------------------------------

    @rule(
        prompt=_PROMPTS,
        fields=_FIELDS,
        states=_STATES,
        waited_s=st.sampled_from([0.0, 2.0, 40.0]),
    )
    def come(self, prompt: list[int], fields: Any, states: Any, waited_s: float) -> None:
        owner = self.node.begin(prompt, states=states, **fields)
        if owner is None:
            self.node.offload.hurry(waited_s)
            return
        self.live.append(owner)

    @rule(which=_ANY, tokens=st.lists(st.sampled_from([7, 8, 8, 50]), min_size=1, max_size=8))
    def generate(self, which: int, tokens: list[int]) -> None:
        if self.live:
            self.node.generate(self.live[which % len(self.live)], tokens)

    @rule(which=_ANY, has_extra=st.booleans())
    def end(self, which: int, has_extra: bool) -> None:
        """Finished or aborted: the offload sees no difference."""
        if self.live:
            owner = self.live.pop(which % len(self.live))
            self.node.end(owner, self.extra(owner) if has_extra else None)
            self.ended.append(owner)

    def extra(self, owner: OwnedRequest) -> Extra | None:
        end = self.node.offload.storable(owner)
        index = (owner.num_kv if end is None else min(end, owner.num_kv)) // 2
        if index >= -(-owner.num_kv // 2):
            return None
        outcomes: list[bool] = []
        self.extras.append(outcomes)
        key = f"extra {len(self.extras)}".encode().ljust(32)
        return Extra(key=key, index=index, prepare=lambda slot: None, done=outcomes.append)

    # --- what goes on meanwhile -------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 2.0]))
    def turn(self, seconds: float) -> None:
        self.node.now += seconds
        self.node.turn()

    @rule(num_looks=st.integers(0, 3), num_writes=st.integers(0, 3), has_copies=st.booleans())
    def all_goes_on(self, num_looks: int, num_writes: int, has_copies: bool) -> None:
        """And the loop hears of it."""
        for _ in range(2):
            self.node.turn()
            if has_copies:
                self.node.mover.finish()
            for _ in range(num_looks):
                self.node.looks.step()
            for _ in range(num_writes):
                self.node.writes.step()
            self.node.now += 0.1

    @rule(which=_ANY, what=st.sampled_from(["layer", "end", "end", "fail", "at_once"]))
    def copy_goes_on(self, which: int, what: str) -> None:
        moves = self.node.mover.under_way()
        self.node.mover.fails_at_once = what == "at_once"
        if moves and what != "at_once":
            move = moves[which % len(moves)]
            {"layer": move.step, "end": move.finish, "fail": move.fail}[what]()

    @rule()
    def flush(self) -> None:
        self.node.pages.cache.flush()

    # --- L3 ---------------------------------------------------------------------------------------

    @rule(fault=st.sampled_from(["error", "no_room", "lost", "stalled", "heal", "heal"]), at=_ANY)
    def l3_errs(self, fault: str, at: int) -> None:
        if fault == "error":
            self.store.error = StorageUnavailable("broken by a test")
        elif fault == "no_room":
            self.store.has_room = False
        elif fault == "lost":
            for key in sorted(self.store.pages)[at % 2 :: 2]:
                del self.store.pages[key]
        elif fault == "stalled":
            self.store.stall()
            self.node.writes.step()
            self.heal()
        else:
            self.heal()

    def heal(self) -> None:
        self.store.heal()
        assert self.node.guard.state == "detached" or self.node.guard.wait_attached(20)

    @rule(how=st.sampled_from(["detached", "attached", "replaced"]))
    def l3_changes(self, how: str) -> None:
        if how == "detached":
            self.node.guard.detach(0.0)
            return
        if how == "replaced":
            self.stores.append(FaultyStore())
        self.store.heal()
        self.node.attach(self.store)

    # --- what must be so ------------------------------------------------------------

    @invariant()
    def no_more_slots_are_used_than_allowed(self) -> None:
        if hasattr(self, "node"):
            assert self.node.offload._staging._num_used <= self.limit

    @invariant()
    def what_is_copied_or_waits_for_it_is_still_the_requests(self) -> None:
        for chain in self.node.offload._chains.values() if hasattr(self, "node") else ():
            assert not (chain.needs_device and chain.is_released)
            if chain.needs_device:
                assert chain.owner.pages

    def teardown(self) -> None:
        try:
            if hasattr(self, "node"):
                self.nothing_stays_behind()
        finally:
            self.dues.patches.stop()
            for store in self.stores:
                store.heal()
            if hasattr(self, "node"):
                self.node.close()

    def nothing_stays_behind(self) -> None:
        self.node.mover.fails_at_once = False
        while self.live:
            self.end(0, False)
        self.heal()
        self.node.settle()
        node, offload = self.node, self.node.offload
        assert not offload._chains and not offload._busy and offload.backlog == 0
        assert node.all_is_free()
        for store in self.stores:
            assert all(is_right(store, key) for key in store.pages if b"extra" not in key)
        assert all(len(outcomes) == 1 for outcomes in self.extras)
        assert self.dues.num == node.counted("kvloop_offload_seconds_count") + self.given_up()
        self.a_healthy_store_gets_it_all()

    def given_up(self) -> int:
        reasons = ("failed", "evicted", "policy", "deadline", "detached", "back_pressure")
        return sum(self.node.holes(reason, False) for reason in reasons)

    def a_healthy_store_gets_it_all(self) -> None:
        """Whatever went before, the next request's chain is whole."""
        self.stores.append(FaultyStore())
        self.node.be_patient()
        self.node.attach(self.store)
        owner = self.node.begin([90, 91, 92, 93], states="will_not")
        assert owner is not None
        for _ in range(3):
            self.node.generate(owner, [7, 7])
            self.node.settle(8)
        self.node.end(owner)
        self.node.settle()
        assert set(self.store.pages) == set(owner.keys)


_SETTINGS = settings(
    deadline=None,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_no_history_leaks_a_slot_or_stores_a_wrong_page() -> None:
    run_machine(
        OffloadMachine,
        settings=settings(_SETTINGS, max_examples=examples(60), phases=[Phase.generate]),
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_long_history_leaks_a_slot_or_stores_a_wrong_page() -> None:
    run_machine(OffloadMachine, settings=settings(_SETTINGS, max_examples=2000))
