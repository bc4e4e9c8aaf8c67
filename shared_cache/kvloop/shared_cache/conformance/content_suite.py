"""Pages come back as they went in; the answers are for each key, and in order."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from kvloop.shared_cache.backend import leading_run
from kvloop.shared_cache.conformance.pages import SHAPES
from kvloop.shared_cache.conformance.place import Place

_BATCH = 128


class ContentSuite:
    """Part of BackendConformance."""

    def test_pages_come_back_bit_for_bit(self, place: Place) -> None:
        backend, keys = place.open(), place.new_keys(8)
        assert backend.set(keys, place.filled(keys)) == [True] * 8
        assert place.read_back(backend, keys) == [True] * 8

    @pytest.mark.parametrize("shape", SHAPES)
    def test_pages_of_any_shape_come_back_bit_for_bit(self, place: Place, shape: str) -> None:
        other = place.reshaped(SHAPES[shape])
        backend, keys = other.open(), other.new_keys(3)
        assert backend.set(keys, other.filled(keys)) == [True] * 3
        assert other.read_back(backend, keys) == [True] * 3

    def test_a_set_leaves_its_slots_as_they_are(self, place: Place) -> None:
        backend, [key] = place.open(), place.new_keys(1)
        [slot] = place.filled([key])
        backend.set([key], [slot])
        assert place.holds(slot, key)

    def test_a_get_writes_to_no_slot_but_its_own(self, place: Place) -> None:
        backend, keys = place.open(), place.new_keys(3)
        backend.set(keys, place.filled(keys))
        before, target, after = sorted(place.blank(3))
        assert backend.get([keys[1]], [target]) == [True]
        blank = bytes(place.pool.view(before))
        assert bytes(place.pool.view(after)) == blank and blank == b"\xaa" * len(blank)

    def test_existence_is_told_key_by_key(self, place: Place) -> None:
        backend, keys = place.open(), place.new_keys(5)
        some = [keys[0], keys[1], keys[3]]
        backend.set(some, place.filled(some))
        found = backend.exists(keys)
        assert found == [True, True, False, True, False]
        assert leading_run(found) == 2

    def test_a_batch_with_holes_brings_the_pages_that_are_there(self, place: Place) -> None:
        backend, keys = place.open(), place.new_keys(6)
        backend.set(keys[1::2], place.filled(keys[1::2]))
        assert place.read_back(backend, keys) == [False, True] * 3

    def test_a_set_of_some_new_pages_keeps_the_old_ones(self, place: Place) -> None:
        backend, keys = place.open(), place.new_keys(4)
        backend.set(keys[:2], place.filled(keys[:2]))
        assert backend.set(keys, place.filled(keys)) == [True] * 4
        assert place.read_back(backend, keys) == [True] * 4

    def test_missing_pages_are_misses_and_never_raise(self, place: Place) -> None:
        backend, keys = place.open(), place.new_keys(3)
        assert backend.exists(keys) == [False] * 3
        assert backend.get(keys, place.blank(3)) == [False] * 3

    def test_the_first_set_wins(self, place: Place) -> None:
        backend, [key] = place.open(), place.new_keys(1)
        assert backend.set([key], place.filled([key], version=1)) == [True]
        assert backend.set([key], place.filled([key], version=2)) == [True]
        assert place.read_back(backend, [key], versions=[1]) == [True]

    def test_empty_batches_are_answered_with_nothing(self, place: Place) -> None:
        backend = place.open()
        assert backend.exists([]) == [] and backend.get([], []) == []
        assert backend.set([], []) == [] and backend.delete([]) == []

    def test_a_key_may_come_twice_in_one_batch(self, place: Place) -> None:
        backend, [key, other] = place.open(), place.new_keys(2)
        batch = [key, other, key]
        slots = place.filled([key, other]) + place.filled([key], version=1)
        assert backend.set(batch, slots) == [True] * 3
        assert backend.exists(batch) == [True] * 3
        assert place.read_back(backend, batch, versions=[0, 1]) == [True] * 3

    def test_batches_of_128_pages_go_and_come(self, place: Place) -> None:
        wide = place.reshaped(place.shape, num_slots=2 * _BATCH)
        backend, keys = wide.open(), wide.new_keys(_BATCH)
        assert backend.set(keys, wide.filled(keys)) == [True] * _BATCH
        assert backend.exists(keys) == [True] * _BATCH
        assert wide.read_back(backend, keys) == [True] * _BATCH

    def test_many_missing_keys_are_answered_in_one_call(self, place: Place) -> None:
        assert place.open().exists(place.new_keys(1000)) == [False] * 1000

    def test_a_deleted_page_is_gone_and_its_neighbours_are_not(self, place: Place) -> None:
        place.require("can_delete")
        backend, keys = place.open(), place.new_keys(3)
        backend.set(keys, place.filled(keys))
        assert place.read_back(backend, keys) == [True] * 3  # a page read just now, too
        assert backend.delete(keys[1:2]) == [True]
        assert backend.exists(keys) == [True, False, True]
        assert place.read_back(backend, keys) == [True, False, True]

    def test_deleting_what_is_not_there_is_false(self, place: Place) -> None:
        place.require("can_delete")
        backend, keys = place.open(), place.new_keys(3)
        backend.set(keys[1:2], place.filled(keys[1:2]))
        assert backend.delete(keys) == [False, True, False]
        assert backend.delete(keys) == [False] * 3

    def test_a_deleted_page_can_be_set_again_with_other_content(self, place: Place) -> None:
        place.require("can_delete")
        backend, [key] = place.open(), place.new_keys(1)
        for version in range(3):
            assert backend.set([key], place.filled([key], version)) == [True]
            assert place.read_back(backend, [key], versions=[version]) == [True]
            assert backend.delete([key]) == [True]

    def test_two_openings_in_one_process_are_one_store(self, place: Place) -> None:
        writer, reader, [key] = place.open(), place.open(), place.new_keys(1)
        assert writer.set([key], place.filled([key])) == [True]
        assert reader.exists([key]) == [True]
        assert place.read_back(reader, [key]) == [True]

    def test_what_was_stored_is_there_after_close_and_open(self, place: Place) -> None:
        first, keys = place.open(), place.new_keys(4)
        first.set(keys, place.filled(keys))
        place.shut(first)
        again = place.open()
        assert again.exists(keys) == [True] * 4
        assert place.read_back(again, keys) == [True] * 4
        assert again.set(keys, place.filled(keys, version=1)) == [True] * 4
        assert place.read_back(again, keys) == [True] * 4

    def test_closing_one_opening_leaves_the_others_working(self, place: Place) -> None:
        staying, leaving, keys = place.open(), place.open(), place.new_keys(2)
        leaving.set(keys[:1], place.filled(keys[:1]))
        place.shut(leaving)
        assert staying.set(keys[1:], place.filled(keys[1:])) == [True]
        assert place.read_back(staying, keys) == [True] * 2

    def test_stats_are_finite_numbers_while_calls_run_too(self, place: Place) -> None:
        backend, keys = place.open(), place.new_keys(8)
        slots = place.filled(keys)
        with ThreadPoolExecutor(2) as threads:
            calls = [threads.submit(backend.set, keys, slots) for _ in range(4)]
            snapshots = [backend.stats() for _ in range(20)]
            assert all(call.result() == [True] * 8 for call in calls)
        for stats in (*snapshots, backend.stats()):
            assert all(isinstance(name, str) for name in stats)
            assert all(math.isfinite(value) for value in stats.values())

    def test_stats_change_with_use(self, place: Place) -> None:
        backend, keys = place.open(), place.new_keys(2)
        before = backend.stats()
        backend.set(keys, place.filled(keys))
        place.read_back(backend, keys)
        after = backend.stats()
        assert set(before) <= set(after) and before != after

    def test_a_store_that_serves_passes_its_own_probe(self, place: Place) -> None:
        place.open().probe()
