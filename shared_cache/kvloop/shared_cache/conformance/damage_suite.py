"""Damaged pages, whatever damaged them: a miss, counted, and then a good page can come."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.conformance.place import Place
from kvloop.shared_cache.page_object import TRAILER_BYTES
from kvloop.shared_cache.page_store import PageStore

_HITS = {
    "first byte": 0,
    "last byte of the payload": -1,
    "trailer": TRAILER_BYTES // 2,
}


class DamageSuite:
    """Part of BackendConformance."""

    @pytest.mark.parametrize("hit", _HITS)
    def test_a_flipped_bit_is_a_counted_miss(self, place: Place, hit: str) -> None:
        backend, [key] = place.open(), place.new_keys(1)
        [slot] = place.filled([key])
        start = 0 if hit == "first byte" else place.shape.payload_bytes
        last_group = place.pool.group_view(slot, place.shape.head_groups - 1)
        last_group[start + _HITS[hit]] ^= 1
        assert backend.set([key], [slot]) == [True]
        store = place.page_store()
        assert store.load([key], place.blank(1)) == [None]
        assert sum(_found(store, backend).values()) == 1
        _check_that_a_good_page_can_come(place, store, key)

    def test_a_page_under_another_pages_key_is_a_counted_miss(self, place: Place) -> None:
        backend, [key, other] = place.open(), place.new_keys(2)
        assert backend.set([key], place.filled([other])) == [True]
        store = place.page_store()
        assert store.load([key], place.blank(1)) == [None]
        assert _found(store, backend) in ({"key": 1}, {"damaged": 1})
        _check_that_a_good_page_can_come(place, store, key)

    @pytest.mark.parametrize("factor", [2, 8])
    @pytest.mark.parametrize("is_longer", [False, True], ids=["shorter", "longer"])
    def test_a_page_of_another_length_is_a_miss(
        self, place: Place, is_longer: bool, factor: int
    ) -> None:
        tokens = place.shape.page_size * (factor if is_longer else 1) // (1 if is_longer else 8)
        foreign = place.reshaped(replace(place.shape, page_size=tokens))
        assert (foreign.shape.object_bytes > place.shape.object_bytes) == is_longer
        [key] = place.new_keys(1)
        assert foreign.open().set([key], foreign.filled([key])) == [True]
        store = place.page_store()
        assert store.load([key], place.blank(1)) == [None]
        _check_that_a_good_page_can_come(place, store, key)

    @pytest.mark.parametrize("factor", [1, 8], ids=["shorter", "longer"])
    def test_a_page_of_another_length_is_not_counted_as_a_plain_miss(
        self, place: Place, factor: int
    ) -> None:
        place.require("can_tell_misfits")
        foreign = place.reshaped(
            replace(place.shape, page_size=place.shape.page_size * factor // 4)
        )
        [key] = place.new_keys(1)
        assert foreign.open().set([key], foreign.filled([key])) == [True]
        store = place.page_store()
        of_a_miss = _counted_in_a_miss(place, store, place.new_keys(1)[0])
        assert _counted_in_a_miss(place, store, key) - of_a_miss

    def test_damaged_pages_do_not_spoil_the_batch(self, place: Place) -> None:
        backend, keys = place.open(), place.new_keys(5)
        slots = place.filled(keys)
        place.pool.view(slots[2])[7] ^= 0x10
        assert backend.set(keys, slots) == [True] * 5
        store, read = place.page_store(), place.blank(5)
        writers = store.load(keys, read)
        assert [writer is not None for writer in writers] == [True, True, False, True, True]
        good = [i for i in range(5) if i != 2]
        assert all(place.holds(read[i], keys[i]) for i in good)


def _found(store: PageStore, backend: StorageBackend) -> dict[str, float]:
    """Faults by kind; `damaged` where the backend, reading pages in the background, came first."""
    faults = dict[str, float](store.counters.snapshot().faults)
    return faults or {"damaged": backend.stats().get("damaged", 0.0)}


def _counted_in_a_miss(place: Place, store: PageStore, key: bytes) -> set[str]:
    """Which counters change, of the backend's and of the faults, by a page that does not load."""

    def counters() -> dict[str, float]:
        faults = {fault: float(n) for fault, n in store.counters.snapshot().faults.items()}
        return {**store.status()["stats"], **faults}

    before, [slot] = counters(), place.blank(1)
    assert store.load([key], [slot]) == [None]
    place.pool.free([slot])
    return {name for name, value in counters().items() if value != before.get(name, 0.0)}


def _check_that_a_good_page_can_come(place: Place, store: PageStore, key: bytes) -> None:
    """The first set wins, so the bad one must be out of the way."""
    if not place.spec.can_delete:
        return
    assert store.save([key], place.filled([key], version=3)) == [True]
    [slot] = place.blank(1)
    assert store.load([key], [slot]) == ["prefill"]
    assert place.holds(slot, key, versions=[3])
