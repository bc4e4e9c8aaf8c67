"""A bounded store stays within its bound, keeps what is in use, and a full one never raises."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvloop.shared_cache.backend import StorageBackend
from kvloop.shared_cache.conformance.pages import LARGE
from kvloop.shared_cache.conformance.place import Place
from kvloop.shared_cache.conformance.spec import BackendSpec

Bounded = Callable[[int], BackendSpec]
_BOUND_BYTES = 32 << 20
_NUM_PAGES = 2 * _BOUND_BYTES // LARGE.slot_bytes
_PAGES_PER_CALL = 8


class CapacitySuite:
    """Part of BackendConformance."""

    def test_a_bounded_store_never_holds_more_than_its_bound(
        self, bounded: Bounded | None, request: pytest.FixtureRequest
    ) -> None:
        place, backend = _open(bounded, request)
        keys = place.new_keys(_NUM_PAGES)
        for start in range(0, _NUM_PAGES, _PAGES_PER_CALL):
            _set(place, backend, keys[start : start + _PAGES_PER_CALL])
            num_bytes = sum(backend.exists(keys)) * place.shape.slot_bytes
            assert num_bytes <= _BOUND_BYTES

    def test_a_bounded_store_keeps_the_pages_that_are_used(
        self, bounded: Bounded | None, request: pytest.FixtureRequest
    ) -> None:
        place, backend = _open(bounded, request)
        hot, cold = place.new_keys(8), place.new_keys(_NUM_PAGES)
        assert _set(place, backend, hot) == [True] * 8
        for start in range(0, _NUM_PAGES, _PAGES_PER_CALL):
            _set(place, backend, cold[start : start + _PAGES_PER_CALL])
            place.read_back(backend, hot)
        num_hot = sum(backend.exists(hot))
        assert num_hot >= 6, f"{8 - num_hot} of 8 pages were evicted though in use"

    def test_a_full_store_answers_false_or_makes_room(
        self, bounded: Bounded | None, request: pytest.FixtureRequest
    ) -> None:
        place, backend = _open(bounded, request)
        keys = place.new_keys(_NUM_PAGES)
        stored: list[bool] = []
        for start in range(0, _NUM_PAGES, _PAGES_PER_CALL):
            stored += _set(place, backend, keys[start : start + _PAGES_PER_CALL])
        assert stored[0], "an empty store has room"
        num_held = sum(backend.exists(keys))
        assert num_held >= _NUM_PAGES // 8, "a store that holds next to nothing"
        assert not stored[-1] or backend.exists(keys[-1:]) == [True]
        for start in range(0, _NUM_PAGES, _PAGES_PER_CALL):
            place.read_back(backend, keys[start : start + _PAGES_PER_CALL])


def _open(bounded: Bounded | None, request: pytest.FixtureRequest) -> tuple[Place, StorageBackend]:
    if bounded is None:
        pytest.skip("the suite was given no bounded store: see the fixture `bounded`")
    place = Place(bounded(_BOUND_BYTES), shape=LARGE, num_slots=24)
    request.addfinalizer(place.close)
    return place, place.open()


def _set(place: Place, backend: StorageBackend, keys: list[bytes]) -> list[bool]:
    slots = place.filled(keys)
    stored = backend.set(keys, slots)
    place.pool.free(slots)
    assert len(stored) == len(keys)
    return stored
