"""As a node uses the backend, behind the guard and with trailers checked, while calls go wrong."""

from __future__ import annotations

import random
import time

import pytest

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.conformance.place import Place
from kvloop.shared_cache.failure_injector import NO_FAILURES, FailureInjector, FailureSettings
from kvloop.shared_cache.guard import GuardConfig
from kvloop.shared_cache.page_store import PageStore

_NUM_STEPS = 40
_RECOVERY_S = 30.0
_GUARD = GuardConfig(deadline_s=1.0, first_retry_s=0.02, max_retry_s=0.1, check_s=0.5)
_DICE = {
    "errors": FailureSettings(seed=1, errors=0.3),
    "stalls": FailureSettings(seed=2, stalls=0.05, stall_s=1.5),
    "flipped bits": FailureSettings(seed=3, flips=0.2),
    "lost writes and misses": FailureSettings(seed=4, lost_writes=0.2, misses=0.2),
    "all at once": FailureSettings(
        seed=5, errors=0.1, stalls=0.03, stall_s=1.5, flips=0.1, lost_writes=0.1, misses=0.1
    ),
}


class FaultSuite:
    """Part of BackendConformance."""

    @pytest.mark.parametrize("dice", _DICE)
    def test_injected_faults_are_misses_and_never_wrong_bytes(
        self, place: Place, dice: str
    ) -> None:
        wheel = _Wheel(place, _DICE[dice])
        store = place.page_store(wheel.wrap, _GUARD)
        wheel.turn(_DICE[dice])
        keys = place.new_keys(12)
        random_ = random.Random(7)
        for _ in range(_NUM_STEPS):
            _step(place, store, random_.sample(keys, 4), random_)
        assert sum(wheel.injected().values()) > 0, "nothing was injected: the test shows nothing"
        wheel.turn(NO_FAILURES)
        _check_that_it_recovers(place, store)

    def test_saves_and_loads_need_no_fault_to_be_right(self, place: Place) -> None:
        store, keys = place.page_store(), place.new_keys(6)
        assert store.save(keys, place.filled(keys)) == [True] * 6
        read = place.blank(6)
        assert store.load(keys, read) == ["prefill"] * 6
        assert all(place.holds(slot, key) for key, slot in zip(keys, read, strict=True))
        assert store.leading_run([*keys, *place.new_keys(1)]) == 6


class _Wheel:
    """The injectors of all openings, and what they are set to."""

    def __init__(self, place: Place, settings: FailureSettings) -> None:
        self._place = place
        self._settings = NO_FAILURES
        self._injectors: list[FailureInjector] = []

    def wrap(self, backend: StorageBackend) -> StorageBackend:
        injector = FailureInjector(backend, self._settings, self._place.pool)
        self._injectors.append(injector)
        return injector

    def turn(self, settings: FailureSettings) -> None:
        self._settings = settings
        for injector in self._injectors:
            injector.configure(settings)

    def injected(self) -> dict[str, int]:
        kinds = self._injectors[0].injected
        return {kind: sum(i.injected[kind] for i in self._injectors) for kind in kinds}


def _step(place: Place, store: PageStore, keys: list[bytes], dice: random.Random) -> None:
    """Save, load, or ask; nothing may raise, and what is loaded must be right."""
    slots = place.pool.alloc_up_to(len(keys), timeout_s=5.0)  # calls that stall keep theirs
    keys = keys[: len(slots)]
    action = dice.choice(["save", "load", "load", "exists", "record"])
    if action == "save":
        for key, slot in zip(keys, slots, strict=True):
            place.pool.view(slot)[:] = place.image(key)
        assert len(store.save(keys, slots)) == len(keys)
    elif action == "load":
        for key, slot, writer in zip(keys, slots, store.load(keys, slots), strict=True):
            assert writer is None or place.holds(slot, key), "wrong bytes were served"
    elif action == "exists":
        assert len(store.exists(keys)) == len(keys)
    else:
        store.put_small("record", b"value")
        assert store.get_small("record") in (None, b"value")
    place.pool.free(slots)


def _check_that_it_recovers(place: Place, store: PageStore) -> None:
    until = time.monotonic() + _RECOVERY_S
    keys = place.new_keys(4)
    slots = place.pool.alloc_up_to(4, timeout_s=_RECOVERY_S)
    for key, slot in zip(keys, slots, strict=True):
        place.pool.view(slot)[:] = place.image(key)
    while store.save(keys, slots) != [True] * 4:
        assert time.monotonic() < until, f"no recovery: {store.status()}"
        time.sleep(0.05)
    while store.load(keys, slots) != ["prefill"] * 4:
        assert time.monotonic() < until, f"no recovery: {store.status()}"
        time.sleep(0.05)
    assert all(place.holds(slot, key) for key, slot in zip(keys, slots, strict=True))
